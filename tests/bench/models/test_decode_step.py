"""The bench of the decode step: a model of random weights, a row, and no figure of a step that is wrong."""

import json
from pathlib import Path

import pytest
import torch
from child_process import run_python

from lowrank.bench.models import decode_step
from lowrank.bench.models.decode_step import SHAPES, bytes_a_step, main, random_model
from lowrank.layers.quant_linear import QuantLinear
from lowrank.model.config import ModelConfig

SMALL = ModelConfig(dim=64, n_layers=2, n_heads=2, n_kv_heads=1, hidden_dim=128, vocab_size=96)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(SHAPES, "tiny", SMALL)


def test_a_random_model_is_quantized_whole_and_its_bytes_are_counted() -> None:
    model = random_model(SMALL, torch.device("cpu"), torch.float32)
    assert sum(isinstance(module, QuantLinear) for module in model.modules()) == 2 * 7
    assert not [name for name, tensor in model.named_parameters() if tensor.is_meta]
    weights = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64)  # 4 bits each, and a byte for 64; then the small parts
    linears = weights // 2 + weights // 64 + 14 * (4 + 4)
    assert bytes_a_step(model, 10) == linears + 96 * 64 * 4 + 2 * 2 * 1 * 32 * 10 * 4


def test_a_run_adds_its_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--context", "5", "--steps", "3", "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.iterdir()
    row = json.loads(file.read_text())
    assert file.name.startswith("decode-") and (row["op"], row["context"], row["repetitions"]) == ("decode step", 5, 3)
    assert row["tokens_a_second"] == pytest.approx(1e3 / row["ms"]) and "tokens a second" in capsys.readouterr().out


def test_logits_that_are_not_finite_give_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decode_step, "measure", lambda *_: ([1.0], torch.tensor([[torch.nan]])))
    assert main([]) == 1 and capsys.readouterr().out == ""


@pytest.mark.slow
def test_it_needs_torch_triton_and_numpy_alone() -> None:
    code = """
import sys
for name in ("safetensors", "sentencepiece", "huggingface_hub", "tqdm", "bitsandbytes", "torchao"):
    sys.modules[name] = None
from lowrank.bench.kernels import llama_ops
from lowrank.bench.models import decode_step
print(llama_ops.main(["--device", "cuda"]), decode_step.main(["--device", "cuda"]))
"""
    run_python("-c", code)
