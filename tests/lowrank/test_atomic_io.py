"""Files are whole or not there, and an error leaves what was there before."""

import hashlib
import math
import subprocess
import sys
from pathlib import Path

import pytest

from lowrank.atomic_io import (
    new_file,
    new_folder,
    partial_folder,
    remove_unfinished,
    resumed_folder,
    sha256_of,
    write_json,
    write_text,
)


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_new_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    for content in ({"b": "2"}, {"a": "1", "b": "3"}):
        with new_folder(target) as aside:
            for name, text in content.items():
                (aside / name).write_text(text)
        assert tree(tmp_path / "deep") == {f"out/{name}": text for name, text in content.items()}
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("foreign", ["mine.txt", "inner/mine.txt"])
def test_a_folder_with_a_foreign_file_is_not_replaced(foreign: str, tmp_path: Path) -> None:
    write_text(tmp_path / "out" / foreign, "keep")
    refused = pytest.raises(ValueError, match=rf"out: holds {foreign.split('/')[0]}, which would be lost")
    with refused, new_folder(tmp_path / "out") as aside:
        (aside / "a").write_text("new")
    assert tree(tmp_path) == {f"out/{foreign}": "keep"}


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    write_text(tmp_path / "out", "keep")
    with pytest.raises(ValueError, match="is a file"), new_folder(tmp_path / "out") as aside:
        (aside / "a").write_text("new")
    assert tree(tmp_path) == {"out": "keep"}


def test_a_new_folder_may_hold_folders(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "a").write_text("1")
    assert tree(tmp_path) == {"out/inner/a": "1"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [{}, {"out/a": "old"}], ids=["nothing", "old"])
def test_an_error_in_a_folder_leaves_what_was_there(before: dict[str, str], error: type, tmp_path: Path) -> None:
    for name, text in before.items():
        write_text(tmp_path / name, text)
    with pytest.raises(error), new_folder(tmp_path / "out") as aside:
        (aside / "a").write_text("new")
        raise error
    assert tree(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"] * len(before)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [{}, {"file": "old"}], ids=["nothing", "old"])
def test_an_error_in_a_file_leaves_what_was_there(before: dict[str, str], error: type, tmp_path: Path) -> None:
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(error), new_file(tmp_path / "file") as aside:
        aside.write_text("new, but not whole")
        raise error
    assert tree(tmp_path) == before


def test_a_failed_renaming_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "out" / "a", "old")
    rename = Path.rename

    def fails_for_the_new_one(self: Path, target: Path) -> Path:
        if Path(target) == tmp_path / "out" and (self / "a").read_text() == "new":
            raise OSError("disk error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new_one)
    with pytest.raises(OSError, match="disk error"), new_folder(tmp_path / "out") as aside:
        (aside / "a").write_text("new")
    assert tree(tmp_path) == {"out/a": "old"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_was_interrupted_is_found_again(error: type[BaseException], tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with pytest.raises(error), resumed_folder(target, ["a", "b"]) as aside:
        (aside / "a").write_text("1")
        raise error
    assert tree(tmp_path) == {"deep/.out.partial/a": "1"}
    with resumed_folder(target, ["a", "b"]) as aside:
        assert aside == partial_folder(target)
        assert tree(aside) == {"a": "1"}
        (aside / "b").write_text("2")
    assert tree(tmp_path) == {"deep/out/a": "1", "deep/out/b": "2"}
    assert list(target.parent.iterdir()) == [target]


def test_a_mistake_leaves_nothing_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weight"), resumed_folder(tmp_path / "out", ["a"]) as aside:
        (aside / "a").write_text("1")
        raise ValueError("no weight")
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_file_is_told_before_the_work(tmp_path: Path) -> None:
    write_text(tmp_path / "out" / "mine.txt", "keep")
    refused = pytest.raises(ValueError, match=r"out: holds mine.txt, which would be lost")
    with refused, resumed_folder(tmp_path / "out", ["a"]):
        pytest.fail("the work began")
    assert tree(tmp_path) == {"out/mine.txt": "keep"}


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / "out" / "a", "x")
    with new_folder(tmp_path / "folder"), resumed_folder(tmp_path / "resumed", []):
        pass
    assert (tmp_path / "out" / "a").stat().st_mode & 0o777 == 0o644
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("folder", "resumed")} == {0o755}


def test_json_is_indented_utf_8_with_a_final_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1]})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "é": [\n    1\n  ]\n}\n'.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_has_no_word_for_what_is_not_finite(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": value})
    assert not list(tmp_path.iterdir())


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("kind", [new_file, new_folder])
def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_there(kind, tmp_path: Path) -> None:
    left = tmp_path / ".out.abcd1234.unfinished"
    other = [tmp_path / name for name in (".out.original", "out.unfinished", ".outer.abcd1234.unfinished", ".out")]
    left.mkdir() if kind is new_folder else left.write_text("half")
    for path in other:
        path.write_text("keep")
    with kind(tmp_path / "out") as aside:
        assert not left.exists()
        aside.write_text("1") if kind is new_file else (aside / "a").write_text("1")
    assert set(tmp_path.iterdir()) == {*other, tmp_path / "out"}


@pytest.mark.slow
def test_what_a_living_process_writes_is_left_to_it_and_a_killed_one_s_is_removed(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from lowrank.atomic_io import new_file\n"
        "with new_file(pathlib.Path(sys.argv[1])) as aside:\n"
        "    aside.write_text('half'); print('ready', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "out"], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        remove_unfinished(tmp_path, "out")
        (unfinished,) = tmp_path.iterdir()
        assert unfinished.read_text() == "half"
        child.kill()
    remove_unfinished(tmp_path, "out")
    assert not list(tmp_path.iterdir())
