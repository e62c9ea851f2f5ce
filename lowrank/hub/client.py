"""Requests to the Hugging Face hub: the files of a repository at a commit, and the bytes of one of them.

Every error is one line, with the steps to take. With HF_HUB_OFFLINE=1 no request is made.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from ..atomic_io import sha256_of

RepositoryType = Literal["model", "dataset"]


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, such as "meta-llama/Llama-2-7b"."""

    id: str
    type: RepositoryType

    @property
    def page(self) -> str:
        """Where a person sees it, and accepts its licence."""
        return f"https://huggingface.co/{'datasets/' if self.type == 'dataset' else ''}{self.id}"


@dataclass(frozen=True)
class HubFile:
    """A file as the hub lists it. Large ones come with the SHA-256 of their bytes, small ones as a blob of Git."""

    name: str
    bytes: int
    sha256: str | None
    git_blob: str

    def is_whole(self, path: Path) -> bool:
        """True if the bytes at `path` are those that the hub has.

        A Git blob's id is SHA-1 of "blob ", the count of bytes, a zero byte, and the bytes.
        """
        if path.stat().st_size != self.bytes:
            return False
        if self.sha256 is not None:
            return sha256_of(path) == self.sha256
        return hashlib.sha1(b"blob %d\0" % self.bytes + path.read_bytes()).hexdigest() == self.git_blob


def list_files(repository: Repository, revision: str) -> tuple[str, list[HubFile]]:
    """The commit that a branch, tag or commit stands for, and every file at it.

    Raises ValueError for a repository or revision that does not exist, OSError if access is refused or the hub cannot
    be reached.
    """
    from huggingface_hub import HfApi

    with _translate_hub_errors(repository, revision):
        ask = HfApi().dataset_info if repository.type == "dataset" else HfApi().model_info
        info = ask(repository.id, revision=revision, files_metadata=True)
    commit = info.sha or ""
    if not re.fullmatch(r"[0-9a-f]{40}", commit) or info.siblings is None:
        raise OSError(f"{repository.id} at {revision}: the hub names no commit with files: is HF_ENDPOINT a hub?")
    files = []
    for file in info.siblings:
        path = PurePosixPath(file.rfilename)
        if path.is_absolute() or ".." in path.parts or "\\" in file.rfilename:
            raise ValueError(f"{repository.id}: a file must lie inside the repository, got {file.rfilename!r}")
        if file.size is None or file.blob_id is None:
            raise OSError(f"{repository.id}: the hub does not say how large {file.rfilename} is")
        files.append(HubFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else None, file.blob_id))
    return commit, files


def download(repository: Repository, commit: str, file: HubFile, folder: Path) -> None:
    """Writes the file into the folder, with a bar of its bytes; one that exists already is left alone.

    An unfinished file is kept beside it as NAME.part, and the next call continues it. The file gets its name once its
    hash is the hub's.  Raises OSError otherwise, naming it, and what `list_files` raises.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    target = folder / file.name
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    if part.exists() and part.stat().st_size > file.bytes:
        part.unlink()
    # The library's own download throws away what a stopped process has fetched; its transport can go on.
    url = hf_hub_url(repository.id, file.name, repo_type=repository.type, revision=commit)
    headers = {**build_hf_headers(), "accept-encoding": "identity"}
    with part.open("ab") as out:
        with _translate_hub_errors(repository, commit):
            http_get(
                url,
                out,
                resume_size=out.tell(),
                headers=headers,
                expected_size=file.bytes,
                displayed_filename=file.name,
            )
        out.flush()
        os.fsync(out.fileno())
    if not file.is_whole(part):
        part.unlink()
        raise OSError(
            f"{repository.id}: {file.name}: what came is not what the hub lists (its hash differs): run again"
        )
    part.replace(target)


@contextmanager
def _translate_hub_errors(repository: Repository, revision: str) -> Iterator[None]:
    """The library's errors as one line each: what is wrong, and what to do about it."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # of its HTTP library

    where = f"{repository.id} at {revision}"
    sign_in = "run `hf auth login` (or set HF_TOKEN to a token of your account)"
    again = "run this again: what has come so far is kept"
    try:
        yield
    except GatedRepoError:  # is a RepositoryNotFoundError too, so it comes first
        if get_token() is None:
            steps = f"accept its licence at {repository.page}, {sign_in}, and run this again"
        else:
            steps = (
                f"the account of your token has no access yet: accept its licence at {repository.page} with that "
                "account, wait until it is granted, and run this again"
            )
        raise OSError(f"{where}: is gated: {steps}") from None
    except RepositoryNotFoundError:
        raise ValueError(f"{where}: not found, or private: check {repository.page}; if private, {sign_in}") from None
    except RevisionNotFoundError:
        raise ValueError(f"{where}: no such revision: pick one at {repository.page}/commits/main") from None
    except OfflineModeIsEnabled:
        raise OSError(f"{where}: not on this disk, and HF_HUB_OFFLINE forbids the network: unset it") from None
    except HfHubHTTPError as error:
        raise OSError(f"{where}: the hub refused: {' '.join(str(error).split())}: {sign_in}, or {again}") from None
    except TransportError as error:
        raise OSError(f"{where}: the hub is out of reach or cut the connection ({error}): {again}") from None
