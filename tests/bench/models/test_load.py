"""The bench of loading, on a shape that takes seconds: every stage in its own process, and nothing left behind."""

import argparse
import json
import shutil
from pathlib import Path

import pytest
import torch

from lowrank.bench.models import load
from lowrank.bench.models.random_llama import write_random_llama
from lowrank.cli.bench import load as verb
from lowrank.model.checkpoint import open_checkpoint
from lowrank.model.config import PRESETS

pytestmark = pytest.mark.long


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    verb.add(parser.add_subparsers())
    args = parser.parse_args(["load", *arguments])
    return args.run(args)


def test_a_random_llama_is_a_checkpoint_of_meta(tmp_path: Path) -> None:
    config, shards = load.SHAPES["tiny"]
    written = write_random_llama(tmp_path, config, shards)
    found = open_checkpoint(tmp_path)
    assert (found.config, len(found.files)) == (config, shards)
    tensors = dict(found.tensors())
    assert sum(tensor.nbytes for tensor in tensors.values()) == written
    assert torch.equal(tensors["norm.weight"], torch.ones(config.dim, dtype=torch.bfloat16))
    deviations = [tensor.float().std().item() for tensor in tensors.values() if tensor.dim() == 2]
    assert deviations == pytest.approx([0.02] * len(deviations), rel=0.02)


def test_every_stage_makes_a_row(tmp_path: Path, capsys) -> None:
    out, scratch = tmp_path / "rows.jsonl", tmp_path / "not" / "there"
    assert run("--scratch", str(scratch), "--threads", "1", "--out", str(out)) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    stages = [row["stage"] for row in rows]
    assert stages == ["make", "quantize", "ready", "load", "prompt", "generate", "train"]
    for row in rows:
        assert row["seconds"] > 0 and row["gb_per_s"] >= 0 and row["threads"] == 1
        assert 1e8 < row["peak_resident_bytes"] < 4e9
        assert {"machine", "versions", "date", "commit", "load_average"} <= row.keys()
    assert rows[2]["torch_import_seconds"] > 0 and rows[2]["dtype"] in ("fp32", "bf16")
    del rows[2]
    assert (rows[3]["tokens"], rows[4]["tokens"]) == (8, 16)
    config = load.SHAPES["tiny"][0]
    embedding = 2 * config.vocab_size * config.dim
    assert rows[4]["bytes"] == 16 * rows[3]["bytes"] == 16 * (rows[2]["bytes"] - embedding)
    assert 5 < rows[5]["loss"] < 9  # some ln 2048
    shown, told = capsys.readouterr()
    assert "peak resident GB" in shown
    assert [line.partition(":")[0] for line in told.splitlines()] == stages
    assert not any(scratch.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["not", "rows.jsonl"]


def test_a_disk_that_is_too_small_is_told_with_the_figure(tmp_path: Path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=12_000_000_000))
    with pytest.raises(ValueError, match=r"a random 7b .* needs 17\.5 GB of disk, 12\.0 GB are free"):
        run("--shape", "7b", "--scratch", str(tmp_path))


@pytest.mark.parametrize(("option", "value", "said"), [("--shape", "8b", "got '8b'"), ("--threads", "0", "got 0")])
def test_a_mistake_is_told(option: str, value: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        run("--scratch", str(tmp_path), option, value)


def test_a_stage_that_fails_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(load, "STAGES", ("quantize",))  # of a base that was not made
    with pytest.raises(RuntimeError, match="stage quantize of the bench ended with status 1"):
        load.run("tiny", tmp_path)


@pytest.mark.parametrize("shape", ["7b", "13b", "70b"])
def test_true_sizes_are_the_presets_in_metas_number_of_shards(shape: str) -> None:
    config, shards = load.SHAPES[shape]
    assert config == PRESETS[shape]
    assert shards == {"7b": 1, "13b": 2, "70b": 8}[shape]
