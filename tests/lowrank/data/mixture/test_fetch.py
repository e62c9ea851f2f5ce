"""Where the raw files come from: the hub's function is a fake here, its cache a folder, its errors its own."""

from collections.abc import Callable
from pathlib import Path
from shutil import copytree, rmtree
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from lowrank.data.mixture.fetch import hub_files, local_files
from lowrank.data.mixture.sources import DATA_SETS

# All that the library's errors look at; its own class of responses differs between its versions.
RESPONSE: Any = SimpleNamespace(headers={}, request=None, status_code=404)


@pytest.fixture
def hub(raw: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub that has every data set; the list holds what it was asked for."""
    asked: list[dict[str, Any]] = []

    def snapshot_download(repo_id: str, **options: Any) -> str:
        asked.append({"repo_id": repo_id, **options})
        return str(raw / repo_id.rpartition("/")[2])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


@pytest.fixture
def failing_hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Makes the hub raise an error."""

    def fail(error: Exception) -> None:
        def snapshot_download(*_: Any, **__: Any) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)

    return fail


def test_a_folder_gives_every_file_of_every_split_and_no_revision(raw: Path) -> None:
    files = local_files(raw)
    assert [(file.data.name, file.split) for file in files] == [
        ("fingpt-ner", "train"), ("fingpt-ner", "test"), ("twitter-financial-news-sentiment", "train"),
        ("twitter-financial-news-sentiment", "validation"), ("fingpt-sentiment-train", "train"),
        ("fingpt-fiqa_qa", "train"), ("fingpt-fiqa_qa", "train"),
    ]  # fmt: skip
    assert files[2].to_json().keys() == {"repository", "revision", "split", "file", "bytes", "sha256", "licence"}
    assert {file.revision for file in files} == {None}


def test_a_folder_without_the_files_names_all_that_is_missing_and_how_to_get_it(raw: Path, tmp_path: Path) -> None:
    root = copytree(raw, tmp_path / "raw")
    rmtree(root / "fingpt-fiqa_qa")
    (root / "twitter-financial-news-sentiment/sent_valid.csv").unlink()
    with pytest.raises(
        ValueError, match=r"missing twitter.*/sent_valid.csv: `.*; fingpt-fiqa_qa/data/train-\*"
    ) as error:
        local_files(root)
    command = (
        "hf download FinGPT/fingpt-fiqa_qa --repo-type dataset --revision c65953e39aaea4779efc54805c64769429c554c8"
    )
    assert f"{command} --local-dir {root / 'fingpt-fiqa_qa'}" in str(error.value)
    assert "fingpt-ner" not in str(error.value)
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        local_files(tmp_path / "nowhere")


def test_the_pinned_revisions_and_the_files_that_are_needed_are_asked_for(hub: list[dict[str, Any]]) -> None:
    files = hub_files({})
    assert hub == [
        {
            "repo_id": data.repository,
            "repo_type": "dataset",
            "revision": data.revision,
            "allow_patterns": list(data.files.values()),
        }
        for data in DATA_SETS
    ]
    assert {(file.data.name, file.revision) for file in files} == {(data.name, data.revision) for data in DATA_SETS}


def test_another_revision_is_asked_for_and_recorded(hub: list[dict[str, Any]]) -> None:
    files = hub_files({"fingpt-ner": "b" * 40})
    assert [asked["revision"][:1] for asked in hub] == ["b", "c", "a", "c"]
    assert files[0].to_json()["revision"] == "b" * 40
    with pytest.raises(ValueError, match="revision of fingpt-nre: expected one of fingpt-ner, twitter"):
        hub_files({"fingpt-nre": "b" * 40})


def test_a_revision_without_the_files_is_told(
    hub: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(ValueError, match=r"FinGPT/fingpt-ner: data/train-\*.parquet: no such file at revision 6e416e2"):
        hub_files({})


def test_offline_the_librarys_own_cache_is_enough(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for data in DATA_SETS:
        snapshot = tmp_path / f"datasets--{data.repository.replace('/', '--')}" / "snapshots" / data.revision
        copytree(raw / data.name, snapshot)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    files = hub_files({})
    assert len(files) == 7 and all(file.path.is_relative_to(tmp_path) for file in files)
    rmtree(tmp_path / "datasets--FinGPT--fingpt-ner")
    with pytest.raises(OSError, match=r"FinGPT/fingpt-ner at 6e416e2.*: not in the cache, and the hub is out of reach"):
        hub_files({})


@pytest.mark.parametrize(
    ("error", "steps"),
    [
        (
            errors.GatedRepoError("x\ny", response=RESPONSE),
            "accept its terms at https://hugging.*, sign in .`hf auth login`",
        ),
        (
            errors.RepositoryNotFoundError("401", response=RESPONSE),
            "not found, or private: .*HF_TOKEN=....* and run this again",
        ),
        (
            errors.RevisionNotFoundError("404", response=RESPONSE),
            "no such revision: give fingpt-ner one of .*commits/main",
        ),
        (errors.LocalEntryNotFoundError("offline"), "unset HF_HUB_OFFLINE.*hf download FinGPT/.*give DIR in its place"),
        (errors.HfHubHTTPError("403\nForbidden", response=RESPONSE), "the hub refused: 403 Forbidden: sign in"),
    ],
    ids=["gated", "no-token", "no-revision", "offline", "refused"],
)
def test_what_to_do_is_told_in_one_line(failing_hub, error: Exception, steps: str) -> None:
    failing_hub(error)
    with pytest.raises(OSError, match=f"^FinGPT/fingpt-ner at 6e416e.*{steps}") as told:
        hub_files({})
    assert "\n" not in str(told.value)
