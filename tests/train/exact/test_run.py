"""Whole runs by exact numerics: one hash of a hat on every instruction set, resumed or not; and what is refused."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from child_process import environment, run_python

from lowrank.kernels.cpu import library
from lowrank.train.config import TrainConfig
from lowrank.train.from_config import train_from_config

pytestmark = pytest.mark.skipif(bool(library.unavailable_reason()), reason=library.unavailable_reason())

# The SHA-256 of adapter_model.safetensors after the run below. It follows from the embedded base, the entries, the
# template and the rules of exact.h, and from nothing of the machine: a change of it is a change of one of these.
HAT = "3368fcaa747441e0f223f5d0f65879d219f6ea6e44ca3652d67be585ab533e5b"
ENTRIES = [
    {"instruction": f"Write the note of loan {i}.", "output": f"Loan {i}: {1234.5 * i:,.2f} USD at {2 + i / 4:.2f} %."}
    for i in range(1, 9)
]
RUN = """
import hashlib, sys, torch
from lowrank.train.config import TrainConfig
from lowrank.train.from_config import train_from_config

torch.set_num_threads(int(sys.argv[2]))
hat = train_from_config(TrainConfig.read(sys.argv[1]), progress=False).adapter
print(hashlib.sha256((hat / "adapter_model.safetensors").read_bytes()).hexdigest())
"""
SETS = ("portable", "avx2", "avx512", "avx512bf16", "neon")
OF_TORCH = {"portable": "avx2", "avx2": "default", "avx512": "avx512"}  # not always what ours is


def config_of(out: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.from_dict(tables(out, **changes))


def tables(out: Path, **changes: Any) -> dict[str, Any]:
    """A run of four steps of two batches, in which every rule has a part: clipping, decay, a cosine."""
    entries = out.parent / "entries.jsonl"
    entries.parent.mkdir(parents=True, exist_ok=True)
    entries.write_text("".join(json.dumps(entry) + "\n" for entry in ENTRIES))
    run = {"out": str(out), "epochs": 2, "batch": 2, "accumulate": 2, "checkpoint_every": 2, "numerics": "exact"}
    optimizer = {"lr": 1e-3, "schedule": "cosine", "warmup": 1, "clip": 0.05, "weight_decay": 0.1}
    return {"data": {"train": str(entries)}, "optimizer": optimizer, "run": {**run, **changes}}


def toml(tables: dict[str, Any]) -> str:
    lines = [
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    ]
    return "".join(lines)


def hash_of_run(folder: Path, threads: int, **settings: str) -> str:
    """The hash of the hat of a run in a process of its own."""
    file = folder / "run.toml"
    file.write_text(toml(tables(folder / "run")))
    return run_python("-c", RUN, file, str(threads), env=environment(**settings)).stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_the_hat_of_a_run_has_one_hash(name: str, tmp_path: Path) -> None:
    if name not in library.usable_sets():
        pytest.skip(f"this processor has no {name}")
    capability = "default" if name == "portable" else "avx2"
    threads = 1 if name == "portable" else 2
    assert hash_of_run(tmp_path, threads, LOWRANK_CPU_ISA=name, ATEN_CPU_CAPABILITY=capability) == HAT


@pytest.mark.long
@pytest.mark.parametrize(("name", "threads"), [*itertools.product(OF_TORCH, (1, 2))])
def test_torch_and_threads_have_no_part_in_it(name: str, threads: int, tmp_path: Path) -> None:
    if name not in library.usable_sets():
        pytest.skip(f"this processor has no {name}")
    assert hash_of_run(tmp_path, threads, LOWRANK_CPU_ISA=name, ATEN_CPU_CAPABILITY=OF_TORCH[name]) == HAT


def hat(out: Path) -> bytes:
    return (out / "hat" / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_that_goes_on_has_the_bits_of_one_that_was_not_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, stopped = tmp_path / "whole" / "run", tmp_path / "stopped" / "run"
    train_from_config(config_of(whole), progress=False)
    train_from_config(config_of(stopped), progress=False)
    shutil.rmtree(stopped / "hat")
    newest = max((stopped / "checkpoints").glob("step-*.pt"))
    newest.unlink()
    library.library().lowrank_choose(b"portable")  # another instruction set is no other path of exact numerics
    try:
        train_from_config(config_of(stopped), resume=True, progress=False)
    finally:
        library.library().lowrank_choose(None)
    assert "other paths" not in capsys.readouterr().out
    assert hat(stopped) == hat(whole)
    newest.unlink()
    train_from_config(config_of(stopped, numerics="fast"), resume=True, progress=False)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("resume: ")]
    assert "was computed on other paths, so bits will differ: numerics: exact, now none" in line


REFUSED = {
    "base.device": ("cuda", "base.device must be cpu with run.numerics = 'exact', got 'cuda'"),
    "base.dtype": ("bf16", "base.dtype must be fp32 with run.numerics = 'exact', got 'bf16'"),
    "adapter.dropout": (0.1, "adapter.dropout must be left at its default with run.numerics = 'exact', got 0.1"),
    "adapter.dora": (True, "adapter.dora must be left at its default with run.numerics = 'exact', got True"),
    "adapter.start": ("pissa", "adapter.start must be left at its default with run.numerics = 'exact', got 'pissa'"),
    "adapter.merge_aware": ("nf4", "adapter.merge_aware must be left at its default with run.numerics = 'exact'"),
    "preference.loss": ("dpo", "preference.loss must be left at its default with run.numerics = 'exact', got 'dpo'"),
    "run.parallel": ("shards", "run.parallel must be left at its default with run.numerics = 'exact', got 'shards'"),
    "run.recompute": ("selective", "run.recompute must be 'none' or 'full' with run.numerics = 'exact'"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_would_not_be_exact_is_refused_in_one_line(key: str) -> None:
    value, message = REFUSED[key]
    table, name = key.split(".")
    values: dict[str, dict[str, Any]] = {"run": {"numerics": "exact"}}
    values.setdefault(table, {})[name] = value
    with pytest.raises(ValueError) as refused:
        TrainConfig.from_dict(values)
    assert str(refused.value).startswith(f"config: {message}") and "\n" not in str(refused.value)


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"^run\.numerics = 'exact' is one process"):
        train_from_config(config_of(tmp_path / "run"), progress=False)


def test_a_machine_without_the_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lowrank.train.assemble.unavailable_reason", lambda: "there was no compiler")
    with pytest.raises(ValueError, match=r"^run\.numerics = 'exact' is computed by the C library: there was no comp"):
        train_from_config(config_of(tmp_path / "run"), progress=False)
    assert not (tmp_path / "run").exists()
