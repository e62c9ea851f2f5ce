"""Optional libraries: each is imported where it is used, and reported as missing only then."""

import importlib
from types import ModuleType
from typing import NamedTuple


class Library(NamedTuple):
    """A library: the name of its import, the name of its package, and the commands that need it."""

    module: str
    package: str
    serves: str


_MIXTURE = "`lowrank data mixture`"
_TRAIN = "`lowrank train` and `lowrank data`"
_LIVE = "`lowrank parity --live` and the peers of `lowrank bench`"

# An extra of pyproject.toml -> its libraries. `docs`, `test` and `wheel` are for work on lowrank itself.
EXTRAS = {
    "data": (
        Library("pyarrow", "pyarrow", f"Parquet files for {_TRAIN}, and {_MIXTURE}"),
        Library("datasketch", "datasketch", _MIXTURE),
        Library("openpyxl", "openpyxl", f"XLSX files for {_TRAIN}, and of facts for `lowrank generate`"),
        Library("docx", "python-docx", "letters in DOCX for `lowrank data import` and `lowrank data kind new`"),
    ),
    "documents": (
        Library("markdown_it", "markdown-it-py", "HTML and DOCX files, and pages of `lowrank generate --out`"),
        Library("docx", "python-docx", "DOCX files of `lowrank generate --out`"),
    ),
    "gguf": (Library("gguf", "gguf", "`lowrank export --format gguf`"),),
    "tokenizers": (
        Library("tokenizers", "tokenizers", "bases whose tokenizer is a tokenizer.json: SmolLM2, Llama 3"),
        Library("tiktoken", "tiktoken", "Meta's own folders of Llama 3"),
        Library("jinja2", "jinja2", "the model's own chat template"),
    ),
    "serve": (
        Library("starlette", "starlette", "`lowrank serve`"),
        Library("uvicorn", "uvicorn", "`lowrank serve`"),
    ),
    "tensorboard": (Library("tensorboard", "tensorboard", 'watch.trackers = ["tensorboard"]'),),
    "wandb": (Library("wandb", "wandb", 'watch.trackers = ["wandb"]'),),
    "trackio": (Library("trackio", "trackio", 'watch.trackers = ["trackio"]'),),
    "eval": (
        Library("sklearn", "scikit-learn", "`lowrank eval --tasks sentiment`"),
        Library("seqeval", "seqeval", "`lowrank eval --tasks ner`"),
        Library("rouge_score", "rouge-score", "ROUGE in `lowrank eval`"),
        Library("sacrebleu", "sacrebleu", "chrF and self-BLEU in `lowrank eval`"),
    ),
    "lm-eval": (Library("lm_eval", "lm-eval", "`lowrank eval --lm-eval`"),),
    "oracles": (
        Library("transformers", "transformers", _LIVE),
        Library("peft", "peft", _LIVE),
        Library("bitsandbytes", "bitsandbytes", _LIVE),
    ),
}
PACKAGES = {library.module: library.package for libraries in EXTRAS.values() for library in libraries}


def need(module: str, what: str) -> ModuleType:
    """The module of that name.

    Raises ValueError that says what needs it and how to get it, if it, or a library of EXTRAS that it imports, is not
    installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES and error.name != module.partition(".")[0]:
            raise
        package = PACKAGES.get(error.name, error.name)
        raise ValueError(f"{what}: {error.name} is missing: pip install {package}") from None
