"""The raw files of a data set: from the hub at a pinned revision, or from a local folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...atomic_io import sha256_of
from .sources import DATA_SETS, DataSet

HUB = "https://huggingface.co/datasets"


@dataclass(frozen=True)
class RawFile:
    """One file as it came: `revision` is the commit it was fetched at, None for a local folder, which has none."""

    data: DataSet
    split: str
    path: Path
    name: str
    revision: str | None

    def to_json(self) -> dict[str, str | int | None]:
        """Its entry in the manifest."""
        return {
            "repository": self.data.repository,
            "revision": self.revision,
            "split": self.split,
            "file": self.name,
            "bytes": self.path.stat().st_size,
            "sha256": sha256_of(self.path),
            "licence": self.data.licence,
        }


def local_files(root: Path) -> list[RawFile]:
    """The files of all four data sets under a folder with one sub-folder a data set.

    Raises ValueError naming every file that is missing, and how to get it.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    if missing := list(filter(None, (_missing_reason(data, root / data.name) for data in DATA_SETS))):
        raise ValueError(f"{root}: missing {'; '.join(missing)}")
    return [file for data in DATA_SETS for file in _files(data, root / data.name, None)]


def _missing_reason(data: DataSet, folder: Path) -> str:
    """The files that the folder lacks, and the command that gets them; "" if it lacks none."""
    absent = [f"{data.name}/{pattern}" for pattern in data.files.values() if not list(folder.glob(pattern))]
    return f"{', '.join(absent)}: `{_download(data, data.revision, folder)}`" if absent else ""


def hub_files(revisions: Mapping[str, str]) -> list[RawFile]:
    """The files of all four data sets out of the hub's cache, downloaded where they are not in it.

    revisions  data set -> commit, instead of the one in `sources`
    Raises ValueError for a data set that is none or files that a revision lacks, OSError if they cannot be fetched,
    with the steps to take.
    """
    names = [data.name for data in DATA_SETS]
    for name in revisions:
        if name not in names:
            raise ValueError(f"revision of {name}: expected one of {', '.join(names)}")
    return [file for data in DATA_SETS for file in _fetch(data, revisions.get(data.name, data.revision))]


def _fetch(data: DataSet, revision: str) -> list[RawFile]:
    folder = _snapshot(data, revision)
    for pattern in data.files.values():
        if not list(folder.glob(pattern)):
            raise ValueError(f"{data.repository}: {pattern}: no such file at revision {revision}")
    return _files(data, folder, revision)


def _files(data: DataSet, folder: Path, revision: str | None) -> list[RawFile]:
    return [
        RawFile(data, split, path, path.relative_to(folder).as_posix(), revision)
        for split, pattern in data.files.items()
        for path in sorted(folder.glob(pattern))
    ]


def _snapshot(data: DataSet, revision: str) -> Path:
    """The folder of the hub's cache with the files in it; with HF_HUB_OFFLINE=1 nothing is asked of the network."""
    # Imported here, so that neither `lowrank --help` nor a local folder waits for it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{data.repository} at {revision}"
    sign_in = "sign in (`hf auth login`, or HF_TOKEN=...) and run this again"
    try:
        patterns = list(data.files.values())
        return Path(snapshot_download(data.repository, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except GatedRepoError:  # is a RepositoryNotFoundError too, so it comes first
        raise OSError(f"{where}: is gated: accept its terms at {HUB}/{data.repository}, {sign_in}") from None
    except RepositoryNotFoundError:
        raise OSError(f"{where}: not found, or private: check {HUB}/{data.repository}, {sign_in}") from None
    except RevisionNotFoundError:
        hint = f"give {data.name} one of {HUB}/{data.repository}/commits/main"
        raise OSError(f"{where}: no such revision: {hint}") from None
    except LocalEntryNotFoundError:
        elsewhere = _download(data, revision, Path("DIR", data.name))
        raise OSError(
            f"{where}: not in the cache, and the hub is out of reach: connect (and unset HF_HUB_OFFLINE), "
            f"or elsewhere run `{elsewhere}` and give DIR in its place"
        ) from None
    except HfHubHTTPError as error:
        raise OSError(
            f"{where}: the hub refused: {' '.join(str(error).split())}: {sign_in}, or give a folder that has it"
        ) from None


def _download(data: DataSet, revision: str, folder: Path) -> str:
    return f"hf download {data.repository} --repo-type dataset --revision {revision} --local-dir {folder}"
