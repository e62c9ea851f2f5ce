"""The bench of the operations between products: what is compared is right, and what is wrong is not timed."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lowrank.bench.kernels import llama_ops
from lowrank.bench.kernels.llama_ops import OPS, OURS, TORCH, FusedRun, find, liger, main
from lowrank.bench.kernels.plan import Limits


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(llama_ops.SIZES, "cpu", (6, 64, 96, 80, 2))
    limits = Limits(copy_gbs=10.0, read_gbs=10.0, matmul_tflops=0.1, measured=True)
    monkeypatch.setattr(llama_ops, "measure_limits", lambda *_: limits)
    monkeypatch.setattr(llama_ops, "rotations", lambda *_: 2)


def run() -> FusedRun:
    return FusedRun(torch.device("cpu"), torch.bfloat16)


@pytest.mark.parametrize("op", OPS)
def test_ours_and_torchs_are_within_the_rule(op) -> None:
    assert run().inexact_reason(OURS[op], op, 1) is None and run().inexact_reason(TORCH[op], op, 1) is None


@pytest.mark.parametrize("op", OPS)
def test_a_wrong_operation_is_found(op) -> None:
    assert "error" in str(run().inexact_reason(lambda *operands: 1.1 * TORCH[op](*operands), op, 3))


def functions(op):
    """A stand-in for Liger's functions that computes as torch does: what is looked at is how they are called."""

    def rope(q, k, cos, sin):
        assert q.shape[1] + k.shape[1] == 2 and cos.shape == sin.shape == (1, 6, 32)
        half = [angle[:, None, :, :16] for angle in (cos, sin)]
        return llama_ops.torch_rope(q, *half), llama_ops.torch_rope(k, *half)

    def loss(x, weight, targets, bias, ce_weight, ignored, z, smoothing, reduction):
        assert (bias, ce_weight, ignored, z, smoothing, reduction) == (None, None, -100, 0.0, 0.0, "sum")
        return TORCH["linear_cross_entropy"](x, weight, targets), None

    def norm(x, weight, eps, offset, casting, in_place):
        assert (offset, casting, in_place) == (0.0, "llama", False)
        return TORCH["rms_norm"](x, weight)

    names = {"RMSNorm": norm, "Rope": rope, "SiLUMul": TORCH["swiglu"], "FusedLinearCrossEntropy": loss}
    return SimpleNamespace(**{f"Liger{name}Function": SimpleNamespace(apply=apply) for name, apply in names.items()})


@pytest.mark.parametrize("op", OPS)
def test_liger_is_called_with_the_operands_of_ours(op) -> None:
    assert run().inexact_reason(liger(functions(op))[op], op, 3) is None


def test_without_liger_its_absence_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_ops, "import_module", _absent)
    providers, absent = find()
    assert list(providers) == ["ours", "torch"] and absent == "no liger_kernel.ops"


def _absent(name):
    raise ImportError(f"no {name}")


@pytest.mark.long
def test_a_run_has_a_row_for_every_operation_and_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(llama_ops, "find", lambda: ({"ours": OURS, "torch": TORCH}, "not here"))
    assert main(["--repetitions", "2", "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.iterdir()
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert file.name.startswith("fused-") and "liger_kernel is not compared: not here" in capsys.readouterr().err
    kinds = [op + more for op in OPS for more in ("", " + gradient")]
    assert [(row["op"], row["provider"]) for row in found] == [(op, who) for op in kinds for who in ("ours", "torch")]
    assert all(row["ms"] > 0 and row["bytes"] > 0 and set(row) >= {"limits", "commit", "date"} for row in found)


@pytest.mark.long
def test_a_peer_that_fails_is_left_out_and_ours_that_is_wrong_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*operands):
        raise TypeError("takes 4 arguments\n but 5 were given")

    monkeypatch.setattr(llama_ops, "find", lambda: ({"ours": OURS, "liger": TORCH | {"rope": fails}}, None))
    assert main(["--repetitions", "1"]) == 0
    out, err = capsys.readouterr()
    assert "rope: liger is not compared: takes 4 arguments but 5 were given" in err
    assert out.count("liger") == 2 * (len(OPS) - 1)
    wrong = OURS | {"swiglu": lambda gate, up: 1.5 * TORCH["swiglu"](gate, up)}
    monkeypatch.setattr(llama_ops, "find", lambda: ({"ours": wrong}, None))
    assert main(["--repetitions", "1"]) == 1
    out, err = capsys.readouterr()
    assert "wrong: swiglu: swiglu, output 0" in err and "not timed" in err
    assert out.count("ours") == 2 * (len(OPS) - 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU, which is not refused")
def test_without_a_gpu_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cuda"]) == 2 and capsys.readouterr().err.count("\n") == 1
