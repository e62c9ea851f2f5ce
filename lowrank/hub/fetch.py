"""Weights, adapters and data sets from the hub into a folder: pinned, hashed, and usable without the network.

.NAME.COMMIT.partial/    unfinished downloads; the next call continues them
NAME/                    appears when every file is complete
NAME/manifest.json       the repository, the commit, and the bytes and SHA-256 of each file
"""

import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from ..atomic_io import sha256_of, write_json
from ..checkpoints.sidecar_files import RECORD_FILE, licence_files, sidecar_files
from ..model.config_json import read_config, read_json
from ..model.meta_checksums import verify_checklist
from ..model.weight_files import HF_FILES
from ..progress import ProgressBar
from .client import HubFile, Repository, RepositoryType, download, list_files

MANIFEST = "manifest.json"
CHECKLIST = "checklist.chk"
INDEX_FILES = tuple(index for _, index in HF_FILES)

_META_WEIGHTS = re.compile(r"consolidated\.\d+\.pth")
_SHARDS = {  # a model in one file -> what its shards are called, where there are several
    "model.safetensors": re.compile(r"model-\d+-of-\d+\.safetensors|model\.safetensors\.index\.json"),
    "pytorch_model.bin": re.compile(r"pytorch_model-\d+-of-\d+\.bin|pytorch_model\.bin\.index\.json"),
}
ADAPTER_CONFIG = "adapter_config.json"
# The first of them that is there, as `adapters.folder.find_files` reads them: PEFT's, its older versions' and MLX's.
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapters.safetensors")


@dataclass(frozen=True)
class FileRecord:
    """Size and SHA-256 of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The record of a fetch: `revision` as it was requested, `commit` as the hub resolved it."""

    repository: str
    type: RepositoryType
    revision: str
    commit: str
    files: dict[str, FileRecord]

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files.values())

    def to_json(self) -> dict[str, Any]:
        """The contents of manifest.json."""
        return asdict(self)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The inverse.  Raises ValueError naming the file if it is not what `fetch` writes."""
        path = folder / MANIFEST
        if not path.is_file():
            raise ValueError(f"{path}: no such file, so this folder was not made by `lowrank fetch`")
        values = read_json(path)
        try:
            values["files"] = {name: FileRecord(**record) for name, record in values["files"].items()}
            return cls(**values)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not what `lowrank fetch` writes: {error}") from None


def fetch(repository: Repository, folder: Path, revision: str | None = None) -> Manifest:
    """Fills the folder from the hub, at the commit that `revision` (main, if left out) stands for now.

    A folder that was fetched before is checked against its manifest and left alone, without the network; files that
    were taken out of it are fetched again. Of a model come the weights in one format, the config, and the
    tokenizer, licence and other files that go along with them; of a data set everything.
    Raises ValueError for a folder with other files, a model that could not be loaded here, and what the hub does not
    have; OSError if the disk is too small, a file is not what it has to be, or the hub cannot be read (`hub`).
    """
    folder = folder.resolve()
    if (folder / MANIFEST).exists():
        return _complete(repository, folder, revision)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: is there, and not made by `lowrank fetch`: name a new or empty folder")
    revision = revision or "main"
    commit, files = list_files(repository, revision)
    if repository.type == "model":
        wanted = needed([file.name for file in files], f"{repository.id} at {commit}")
        files = [file for file in files if file.name in wanted]
    elif any(file.name == MANIFEST for file in files):
        raise ValueError(f"{repository.id}: has a {MANIFEST} of its own, the name that is needed here")
    partial = _partial(folder, commit)
    _clear_stale(partial, folder)
    _download(repository, commit, files, partial)
    if (partial / CHECKLIST).exists():
        _check_against_meta(partial)
    records = {file.name: FileRecord(file.bytes, file.sha256 or sha256_of(partial / file.name)) for file in files}
    manifest = Manifest(repository.id, repository.type, revision, commit, records)
    write_json(partial / MANIFEST, manifest.to_json())
    partial.replace(folder)
    return manifest


def verify(repository: Repository, folder: Path, revision: str | None = None) -> Manifest:
    """Every file of a fetched folder, byte by byte against its manifest, with a bar.

    Raises OSError naming the first that is missing or differs, ValueError if the folder has no manifest, or holds
    another repository or revision.
    """
    manifest = _manifest_of(repository, folder, revision)
    with ProgressBar(desc="verify", total=manifest.bytes, unit="B", unit_scale=True) as bar:
        for name, record in manifest.files.items():
            path = folder / name
            if not path.is_file():
                raise OSError(f"{path}: is missing: fetch again to get it")
            if path.stat().st_size != record.bytes or sha256_of(path) != record.sha256:
                raise OSError(f"{path}: is not the file that {MANIFEST} names: remove it, and fetch again to get it")
            bar.update(record.bytes)
    return manifest


def needed(names: Iterable[str], where: str) -> set[str]:
    """The files of a model's repository to fetch: one format of weights, the config, and what goes along with them.

    Raises ValueError naming `where` and what was found if there are no weights that can be read here.
    """
    present = {name for name in names if "/" not in name}
    weights: set[str] = set()
    for single, shard in reversed(_SHARDS.items()):
        shards = set(filter(shard.fullmatch, present))  # with their index
        is_sharded = any(not name.endswith(".json") for name in shards)
        weights = shards if is_sharded else {single} & present or weights
    meta = set(filter(_META_WEIGHTS.fullmatch, present))
    beside_weights = {"quantization.json", RECORD_FILE, *sidecar_files(present)}
    if "config.json" in present and weights:
        wanted = weights | {"config.json"} | beside_weights
    elif "params.json" in present and (meta or weights):
        wanted = (meta or weights) | {"params.json", CHECKLIST, "tokenizer_checklist.chk"} | beside_weights
    elif ADAPTER_CONFIG in present and (adapter := [name for name in ADAPTER_WEIGHTS if name in present]):
        wanted = {ADAPTER_CONFIG, adapter[0], RECORD_FILE, *licence_files(present)}
    else:
        others = sorted(name for name in present if name.endswith((".bin", ".gguf", ".h5", ".pth", ".safetensors")))
        raise ValueError(
            f"{where}: needs config.json and model*.safetensors or pytorch_model*.bin (Hugging Face), params.json and "
            "consolidated.*.pth (Meta), or a hat in PEFT's or MLX's files; its weights are "
            + (", ".join(others) or "none")
        )
    return wanted & present


def _complete(repository: Repository, folder: Path, revision: str | None) -> Manifest:
    """A fetched folder, with what is missing of it fetched again at its own commit, and verified."""
    manifest = _manifest_of(repository, folder, revision)
    missing = [name for name in manifest.files if not (folder / name).is_file()]
    if missing:
        _, listed = list_files(repository, manifest.commit)
        partial = _partial(folder, manifest.commit)
        _download(repository, manifest.commit, [file for file in listed if file.name in missing], partial)
        for name in missing:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).replace(folder / name)
        shutil.rmtree(partial)
    return verify(repository, folder, revision)


def _manifest_of(repository: Repository, folder: Path, revision: str | None) -> Manifest:
    manifest = Manifest.read(folder)
    if (manifest.repository, manifest.type) != (repository.id, repository.type):
        raise ValueError(f"{folder}: holds {manifest.repository} ({manifest.type}): name another folder")
    if revision not in (None, manifest.revision, manifest.commit):
        commit = f"{manifest.commit} ({manifest.revision})"
        raise ValueError(f"{folder}: holds the revision {commit}, not {revision}: name another folder")
    return manifest


def _clear_stale(partial: Path, folder: Path) -> None:
    """Deletes downloads at a commit that the branch has left behind."""
    for path in partial.parent.glob(".*.partial"):
        if path != partial and re.fullmatch(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{12}}\.partial", path.name):
            shutil.rmtree(path)


def _download(repository: Repository, commit: str, files: list[HubFile], partial: Path) -> None:
    """The smallest files first, so that a model that cannot be loaded is refused before its weights are fetched."""
    partial.mkdir(parents=True, exist_ok=True)
    present = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    to_come, free = sum(file.bytes for file in files) - present, shutil.disk_usage(partial).free
    if to_come > free:
        raise OSError(f"{partial.parent}: {to_come / 1e9:.3g} GB are to come, and {free / 1e9:.3g} GB are free")
    checks: dict[str, Callable[[Path], object]] = {
        "params.json": read_config,
        "config.json": read_config,
        **dict.fromkeys(INDEX_FILES, lambda path: _check_index(path, {file.name for file in files})),
    }
    for file in sorted(files, key=lambda file: (file.bytes, file.name)):
        download(repository, commit, file, partial)
        if repository.type == "model" and file.name in checks:
            checks[file.name](partial / file.name)


def _check_index(path: Path, files: set[str]) -> None:
    shards = set((read_json(path).get("weight_map") or {}).values())
    if missing := sorted(shards - files):
        raise ValueError(f"{path}: names {missing[0]}, which the repository does not have")


def _check_against_meta(folder: Path) -> None:
    """The MD5 sums that Meta hands out with its weights."""
    try:
        verify_checklist(folder)
    except ValueError as error:
        raise OSError(f"{error} (as the hub has it: Meta's own sums differ from it)") from None


def _partial(folder: Path, commit: str) -> Path:
    return folder.parent / f".{folder.name}.{commit[:12]}.partial"
