"""The kernel bench as it is called: plan, choices, a red run, a busy machine, rows. No time is looked at."""

import json

import pytest
import torch
from child_process import run_python

from lowrank.bench import machine, rows
from lowrank.bench.kernels import products
from lowrank.bench.kernels import run as kernel_run
from lowrank.bench.kernels.checks import Verdict
from lowrank.bench.kernels.peers import Dense, Ours
from lowrank.bench.kernels.plan import Case, Limits
from lowrank.bench.kernels.products import main
from lowrank.bench.machine import Counters, load_between
from lowrank.cli import main as lowrank
from lowrank.kernels import ops

LIMITS = Limits(copy_gbs=10.0, read_gbs=12.5, matmul_tflops=0.25, measured=True)
CASES = [Case("quantize", 64, 128), Case("dequantize", 64, 128), Case("forward", 64, 128, 3), Case("dX", 64, 128, 3)]


def load(others):
    return load_between(Counters(0, 0, 0, 0), Counters(100, 100 * others, 0, 0), 0.1, 0.2)


class QuietMachine:
    """Nobody else is at work."""

    others = 0.0

    def load(self):
        return load(self.others)


class BusyMachine(QuietMachine):
    others = 0.5


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A plan of four small cases on a quiet machine whose limits are made up."""
    monkeypatch.setattr(products, "plan", lambda device, shapes: CASES)
    monkeypatch.setattr(kernel_run, "measure_limits", lambda *_: LIMITS)
    monkeypatch.setattr(kernel_run, "rotations", lambda *_: 2)
    monkeypatch.setattr(machine, "pin", lambda: 1)
    monkeypatch.setattr(products, "RESULTS", tmp_path / "stored")
    monkeypatch.setattr(machine, "LoadMeter", QuietMachine)


@pytest.mark.slow
def test_every_row_of_a_run_is_printed_and_added_to_every_file(small, tmp_path, capsys):
    name = machine.file_name(machine.name(torch.device("cpu")))
    assert main(["--json", "--out", str(tmp_path / "folder"), "--out", str(tmp_path / "rows.jsonl")]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == rows.read(tmp_path / "rows.jsonl") == rows.read(tmp_path / "folder" / name)
    who = [(row["op"], row["provider"]) for row in printed]
    assert who == [(op, "ours") for op in ("quantize", "dequantize")] + [
        (op, provider) for op in ("forward", "dX") for provider in ("ours", "dense")
    ]
    for row in printed:
        assert row["repetitions"] == 50 and 0 < row["ms_min"] <= row["ms"] and row["ms_spread"] >= 0
        assert (row["N"], row["K"], row["M"]) == (64, 128, 3 if row["op"] in ("forward", "dX") else None)
        assert (row["timing"], row["rotations"], row["dtype"], row["busy"]) == ("wall", 2, "bfloat16", False)
        assert row["share"] == pytest.approx(
            max(row["bytes"] / (12.5 if row["M"] else 10) / 1e6, row["flops"] / 0.25e9) / row["ms"]
        )
        assert (row["versus_ours"] is None) == (row["provider"] == "ours")
        assert set(row) >= {"versions", "commit", "source", "date", "machine", "limits", "clocks", "load", "format"}


@pytest.mark.slow
def test_a_run_for_a_reader_says_the_same_in_lines(small, capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "limits (measured): copy 10.0 GB/s read and written, read 12.5 GB/s, bf16 product 0.25 TFLOP/s"
    assert lines[2].startswith("no rows of this machine are stored (")
    assert lines[3].startswith("4 cases, ") and lines[3].endswith(" minutes in all")
    assert lines[4] == "64x128: 4 cases, first against float64"
    assert len(lines) == 11 and "3x64x128  dense" in lines[8] and " x ours [" in lines[8]


@pytest.mark.slow
def test_a_run_begins_with_the_bars_of_the_machine_s_stored_rows(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(products, "RESULTS", tmp_path)
    name = machine.file_name(machine.name(torch.device("cpu")))
    assert products.main(["--out", str(tmp_path)]) == 0
    assert f"no rows of this machine are stored ({name})" in capsys.readouterr().out
    stored = rows.read(tmp_path / name)
    bar = {"op": "quantize", "provider": "bitsandbytes", "M": None, "versus_ours": {"ratio": 25.0}}
    rows.append(tmp_path / name, [{**stored[0], **bar, "date": "2026-01-02T03:04:05"}])
    assert products.main([]) == 0
    begin = capsys.readouterr().out.split("by the stored rows of this machine, ")[1]
    assert "2026-01-02" in begin.splitlines()[0]
    assert begin.splitlines()[1] == "  held    quantize against bitsandbytes, slowest: 25.000, at least 20"


@pytest.mark.slow
def test_rows_of_a_busy_machine_are_marked_and_no_file_has_them(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "LoadMeter", BusyMachine)
    assert main(["--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.count("busy: 50% others") == 6 and "4 of 4 cases ran on a busy machine" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_limits_of_a_busy_machine_spoil_the_rows_as_well(small, monkeypatch):
    meters = iter([BusyMachine(), *[QuietMachine()] * 4])
    monkeypatch.setattr(machine, "LoadMeter", lambda: next(meters))
    run = kernel_run.KernelRun([Ours()], torch.device("cpu"), torch.bfloat16)
    measured = [row for taken in run.measure(CASES, repetitions=1) for row in taken]
    assert [row["busy"] for row in measured] == [True] * 4
    assert [row["load"]["others"] for row in measured] == [0.0] * 4


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "timed"), [("dense", ["ours"]), ("ours", [])])
def test_what_is_wrong_is_not_timed_and_fails_the_exit_status(provider, timed, small, tmp_path, monkeypatch, capsys):
    def check(given, held, case, inputs):
        wrong = given.name == provider and case.op == "dX"
        return Verdict(case, given.name, 2.0 if wrong else 0.5, 1.0)

    monkeypatch.setattr(kernel_run, "check", check)
    assert main(["--out", str(tmp_path / "rows.jsonl")]) == 1
    err = capsys.readouterr().err
    assert f"wrong: dX 3x64x128, {provider}: error 2, at most 1 allowed" in err
    assert "1 outputs are wrong: they were not timed" in err
    written = rows.read(tmp_path / "rows.jsonl")
    assert [row["provider"] for row in written if row["op"] == "dX"] == timed
    assert [row["provider"] for row in written if row["op"] == "forward"] == ["ours", "dense"]


@pytest.mark.slow
def test_a_second_call_goes_on_where_the_first_ended(small, tmp_path, monkeypatch, capsys):
    out = ["--out", str(tmp_path / "rows.jsonl"), "--go-on"]
    monkeypatch.setattr(products, "plan", lambda device, shapes: CASES[:2])
    assert main(out) == 0
    monkeypatch.setattr(products, "plan", lambda device, shapes: CASES)
    assert main(out) == 0
    assert "2 of 4 cases were done by an earlier call" in capsys.readouterr().err
    assert [row["op"] for row in rows.read(tmp_path / "rows.jsonl") if row["provider"] == "ours"] == [
        case.op for case in CASES
    ]
    monkeypatch.setattr(machine, "source", lambda: "another source")
    assert main([*out, "--rows", "3"]) == 0
    assert len(rows.read(tmp_path / "rows.jsonl")) == 6 + 4


@pytest.mark.slow
def test_a_peer_that_refuses_a_case_is_named_and_left_out_of_it_alone(small, monkeypatch, capsys):
    right = kernel_run.check

    def check(provider, held, case, inputs):
        if provider.name == "dense" and case.op == "forward":
            raise RuntimeError("no kernel\n for this")
        return right(provider, held, case, inputs)

    monkeypatch.setattr(kernel_run, "check", check)
    assert main(["--json"]) == 0
    out, err = capsys.readouterr()
    assert "forward 3x64x128: dense is not compared: no kernel for this" in err
    assert [json.loads(line)["op"] for line in out.splitlines() if '"provider": "dense"' in line] == ["dX"]


def test_ours_may_refuse_nothing(small, monkeypatch):
    def check(provider, held, case, inputs):
        raise RuntimeError("ours broke")

    monkeypatch.setattr(kernel_run, "check", check)
    with pytest.raises(RuntimeError, match="ours broke"):
        main([])


def test_a_dry_run_prints_plan_and_limits_and_runs_nothing(small, monkeypatch, capsys):
    monkeypatch.setattr(kernel_run.KernelRun, "check", lambda *_: pytest.fail("a dry run checked"))
    assert main(["--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "copy 10.0 GB/s" in lines[0] and len(lines) == 6
    assert lines[3].split()[:2] == ["forward", "3x64x128"] and "4 cases, 50 repetitions; ours, dense" in lines[-1]
    assert main(["--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["op"] == "quantize"


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU, which is not refused")
def test_without_a_gpu_there_is_one_line_and_still_a_plan(capsys):
    assert main(["--device", "cuda", "--shapes", "full"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "--device cuda: no CUDA device here" in err
    assert main(["--device", "cuda", "--shapes", "full", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "assumed, those of an H200" in out and "168 cases" in out and "of the 8 that a full plan has" in out


def test_explain_prints_what_the_dispatcher_would_choose(capsys):
    assert lowrank(["bench", "kernels", "--explain", "16x4096x11008", "--json"]) == 0
    choices = ops.explain(16, 4096, 11008, dtype=torch.bfloat16, device=torch.device("cpu"))
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == [{"op": choice.op, "path": choice.path, "reason": choice.reason} for choice in choices]
    assert lowrank(["bench", "kernels", "--explain", "16x4096x11008", "--device", "cuda"]) == 0
    assert "forward" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--explain", "16x4096"], "must be MxNxK, such as 16x4096x11008, got '16x4096'"),
        (["--explain", "0x4096x64"], "must be MxNxK"),
        (["--peers", "flute"], "--peers: 'flute' is none of dense, bitsandbytes"),
        (["--shapes", "huge"], 'must be "quick", "full" or NxK,NxK'),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, rule, capsys):
    try:
        status = lowrank(["bench", "kernels", *arguments])
    except SystemExit as stop:
        status = stop.code
    err = capsys.readouterr().err
    assert status == 2 and err.count("\n") == 1 and rule in err


@pytest.mark.slow
def test_it_needs_torch_triton_and_numpy_alone():
    code = """
import sys
for name in ("safetensors", "sentencepiece", "huggingface_hub", "tqdm", "bitsandbytes", "torchao"):
    sys.modules[name] = None
import runpy
sys.argv = ["bench_kernels", "--device", "cuda", "--dry-run"]
runpy.run_module("lowrank.bench.kernels.products", run_name="__main__")
"""
    assert "expected" in run_python("-c", code).stdout


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_every_case_has_its_rows(small):
    run = kernel_run.KernelRun([Ours(), Dense()], torch.device("cuda", 0), torch.bfloat16)
    cases = [*CASES, Case("forward", 64, 128, 4096)]
    assert all(verdict.has_passed for verdict in run.check(cases))
    measured = [row for taken in run.measure(cases, repetitions=3) for row in taken]
    assert {row["timing"] for row in measured if row["provider"] == "dense"} == {"graph"}
    assert len(measured) == 2 + 3 * 2
