"""The small files that go along with weights wherever they go: fetched, quantized, merged.

What reads text, what says how to generate, and what a licence asks to pass on. `config.json` and `params.json` are not
among them: they describe the weights, and are written with them (`config_files`).
"""

import shutil
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

# Patterns of names in capitals: repositories write LICENSE, LICENSE.txt, license.md, ...
LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
GENERATION_FILE = "generation_config.json"
RECORD_FILE = "lowrank.json"  # the provenance of a hat, or of a base that one was merged into (`fingerprint`)


def licence_files(names: Iterable[str]) -> list[str]:
    """Those of the names that are a licence, a notice or a policy of use, sorted."""
    return sorted(name for name in names if any(fnmatchcase(name.upper(), pattern) for pattern in LICENCE_FILES))


def sidecar_files(names: Iterable[str]) -> list[str]:
    """Those of the names of files in a folder that go along with its weights, sorted."""
    names = set(names)
    return sorted({*licence_files(names), *names.intersection((*TOKENIZER_FILES, GENERATION_FILE))})


def sidecars_in(folder: Path) -> list[str]:
    """The names of the files in a folder that go along with its weights, sorted."""
    return sidecar_files(path.name for path in folder.iterdir() if path.is_file())


def write_files(folder: Path, files: Mapping[str, Path | bytes]) -> None:
    """Writes files by name into a folder: copies of others, or what they are to hold."""
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            shutil.copyfile(content, folder / name)
