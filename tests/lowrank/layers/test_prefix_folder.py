"""Prompts kept in a folder: a later process takes them over to the byte, and nothing that is not as it was written."""

import os
import warnings
from pathlib import Path

import pytest
import torch
from child_process import run_python

import lowrank
from lowrank.layers.prefix_cache import CHUNK, PrefixCache
from lowrank.layers.prefix_folder import END, PrefixFolder
from lowrank.model.llama import Llama

from .test_prefix_cache import draw, equal, read

PROMPT = draw(CHUNK + 20, 1)


def cache(folder: Path, limit: int = 1 << 30) -> PrefixCache:
    return PrefixCache(folder=PrefixFolder(folder, limit))


def read_task(model: Llama, prefixes: PrefixCache, prompt: list[int] = PROMPT) -> list[torch.Tensor]:
    return read(model, prompt, prefixes.of_task(CHUNK, keeps_whole=True))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{END}"))


@pytest.fixture
def missed(model: Llama) -> list[torch.Tensor]:
    return read_task(model, PrefixCache())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_another_process_takes_a_prompt_over_or_its_beginning(
    dtype: torch.dtype, hf_folder: Path, tmp_path: Path
) -> None:
    def loaded() -> Llama:
        return lowrank.load(hf_folder / "base", "nf4-dq", dtype=dtype)

    model, other = loaded(), PROMPT[:CHUNK] + draw(9, 5)
    read_task(model, cache(tmp_path / "kept"))
    assert len(files(tmp_path / "kept")) == 2 and (tmp_path / "kept").stat().st_mode & 0o77 == 0
    later = cache(tmp_path / "kept")
    again = loaded()
    for prompt, read_now in ((PROMPT, 0), (other, 9)):
        before = later.tokens_read
        assert equal(read_task(again, later, prompt), read_task(model, PrefixCache(), prompt))
        assert later.tokens_read - before == read_now


def test_what_is_of_another_hat_or_base_is_not_taken_and_told_once(
    model: Llama, missed: list[torch.Tensor], tmp_path: Path
) -> None:
    read_task(model, cache(tmp_path))
    lowrank.use_adapter(model, "second")
    later = cache(tmp_path)
    with pytest.warns(UserWarning, match="of this base, hat, type, version and processor is none of 2 kept prompts"):
        second = read_task(model, later)
    assert later.tokens_taken == 0 and not equal(second, missed) and len(files(tmp_path)) == 4
    with warnings.catch_warnings(action="error"):
        read_task(model, cache(tmp_path))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def swapped(path: Path) -> None:
    one, other = files(path.parent)
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)


@pytest.mark.parametrize("damage", [cut, emptied, changed, swapped])
def test_a_damaged_file_is_told_read_again_and_written_anew(
    damage, model: Llama, missed: list[torch.Tensor], tmp_path: Path
) -> None:
    read_task(model, cache(tmp_path))
    for path in files(tmp_path):
        damage(path)
        if damage is swapped:
            break
    later = cache(tmp_path)
    with pytest.warns(UserWarning, match=f"{END}: .*read again$") as told:
        assert equal(read_task(model, later), missed)
    lines = [str(line.message) for line in told]
    assert later.tokens_taken == 0 and len(lines) == 2 and all(line.count(END) == 1 for line in lines)
    assert not any("\n" in line for line in lines)
    with warnings.catch_warnings(action="error"):
        assert equal(read_task(model, last := cache(tmp_path)), missed) and last.tokens_read == 0


def test_the_limit_removes_what_was_not_used_for_longest_and_no_file_of_others(model: Llama, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_text("mine")
    prompts = [draw(CHUNK, seed) + draw(20, seed) for seed in range(4)]
    read_task(model, cache(tmp_path), prompts[0])
    each = sum(path.stat().st_size for path in files(tmp_path))
    limit = 3 * each
    for number, path in enumerate(files(tmp_path)):
        os.utime(path, (number, number))
    for prompt in prompts[1:3]:
        read_task(model, cache(tmp_path, limit), prompt)
    read_task(model, cache(tmp_path, limit), prompts[0])  # used last now
    read_task(model, cache(tmp_path, limit), prompts[3])
    assert sum(path.stat().st_size for path in files(tmp_path)) <= limit
    first, second = cache(tmp_path, limit), cache(tmp_path, limit)
    read_task(model, first, prompts[0])
    read_task(model, second, prompts[1])
    assert first.tokens_read == 0 and second.tokens_read > 0
    read_task(model, cache(tmp_path / "none", 1))
    assert not (tmp_path / "none").exists() and (tmp_path / "mine.safetensors").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_told_and_the_text_goes_on(
    model: Llama, missed: list[torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lowrank.layers.prefix_folder.save_file", full)
    with pytest.warns(UserWarning, match="a prompt is not kept: .*No space left"):
        assert equal(read_task(model, cache(tmp_path)), missed)
    assert not list(tmp_path.iterdir())


SHARE = """
import sys, torch, lowrank
from pathlib import Path
from lowrank.layers.prefix_cache import PrefixCache
from lowrank.layers.prefix_folder import PrefixFolder
from lowrank.model.generate import generate_tokens
torch.set_num_threads(1)
model = lowrank.load(sys.argv[1], "nf4-dq")
for turn in range(12):
    prompt = [3 + (turn * place + turn) % 50 for place in range(90)]
    kept = PrefixCache(folder=PrefixFolder(Path(sys.argv[2]), int(sys.argv[3])))
    texts = [
        list(generate_tokens(model, [prompt], max_new_tokens=2, prefixes=one.of_task(64, keeps_whole=True)))
        for one in (kept, kept, PrefixCache())
    ]
    assert texts[0] == texts[1] == texts[2]
"""


@pytest.mark.slow
def test_processes_share_a_folder_that_is_too_small_for_them(hf_folder: Path, tmp_path: Path) -> None:
    both = """
import subprocess, sys
one = [subprocess.Popen([sys.executable, "-c", *sys.argv[1:]]) for _ in range(2)]
sys.exit(sum(process.wait() for process in one))
"""
    run_python("-c", both, SHARE, hf_folder / "base", tmp_path, 200_000)
    assert 0 < sum(path.stat().st_size for path in files(tmp_path)) <= 300_000
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in files(tmp_path)}


def test_a_path_that_is_no_folder_and_a_limit_of_nothing_are_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file: must be a folder, for keys and values of prompts$"):
        PrefixFolder(tmp_path / "file")
    with pytest.raises(ValueError, match=r"1 byte or more, got 0$"):
        PrefixFolder(tmp_path, 0)
