"""Repacked 4-bit weights under Triton's interpreter: dequantized, and multiplied by what the table of a GPU chooses.

Not collected by itself: see `test_interpreted.py`.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from draws import normal
from error_bounds import assert_product_is_exact_enough
from torch import Tensor

from lowrank.checkpoints.load import load
from lowrank.kernels import ops
from lowrank.kernels.dispatch import run, table
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.triton.dequantize import dequantize_repacked
from lowrank.kernels.weights.quantized_weight import Blockwise4bit, NestedAbsmax, Repacked4bit
from lowrank.kernels.weights.repack import repack, unpack
from lowrank.layers.lora import AdapterConfig, LoRALinear
from lowrank.layers.quant_linear import QuantLinear

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
# N, K, blocksize: groups of 1, 2 and 4, rows that fill no tile, nested blocks that end within a tile
SHAPES = [(1, 64, 64), (5, 128, 64), (37, 512, 64), (70, 192, 64), (3, 256, 128)]
EVERY_SHAPE = pytest.mark.parametrize(
    ("n", "k", "blocksize"), SHAPES, ids=[f"N{n}-K{k}-b{blocksize}" for n, k, blocksize in SHAPES]
)


def quantized(n: int, k: int, format: str = "nf4-dq", blocksize: int = 64) -> Blockwise4bit:
    w = normal(n, k)
    w[0, :blocksize] = 0
    return reference.quantize_4bit(w, format[:3], blocksize, format.endswith("-dq"))


def bits(w: Tensor) -> Tensor:
    return w.view(torch.int32 if w.dtype == torch.float32 else torch.int16)


@EVERY_DTYPE
@EVERY_SHAPE
@pytest.mark.parametrize("format", ["nf4", "nf4-dq", "fp4"])
def test_dequantized_bits(format: str, n: int, k: int, blocksize: int, dtype: torch.dtype) -> None:
    weight = quantized(n, k, format, blocksize)
    assert torch.equal(bits(dequantize_repacked(repack(weight), dtype)), bits(reference.dequantize_4bit(weight, dtype)))


def test_dequantizing_into_rows_that_stand_apart() -> None:
    weight, wide = quantized(37, 128), torch.full((37, 145), 7.0)
    out = wide[:, :128]
    assert dequantize_repacked(repack(weight), out=out) is out
    assert torch.equal(out, reference.dequantize_4bit(weight)) and (wide[:, 128:] == 7).all()


def test_addresses_past_2_to_the_31(tmp_path: Path) -> None:
    weight, far = quantized(5, 128), 2**30
    sparse = torch.from_file(str(tmp_path / "sparse"), shared=True, size=4 * far + 128, dtype=torch.float16)
    out = sparse.as_strided((5, 128), (far, 1))
    dequantize_repacked(repack(weight), torch.float16, out)
    assert torch.equal(out, reference.dequantize_4bit(weight, torch.float16))


def test_what_does_not_fit_is_refused() -> None:
    packed = repack(quantized(5, 128))
    nested = packed.absmax
    assert isinstance(nested, NestedAbsmax)
    for wrong, dtype, rule in (
        (packed, torch.float64, "dtype must be one of .*got torch.float64"),
        (
            replace(packed, codes=packed.codes.view(2, 5, 1, 32)[:1]),
            torch.float32,
            r"codes must be torch.uint8 \[320\]",
        ),
        (replace(packed, codes=packed.codes.view(5, 1, 2, 32)), torch.float32, r"codes must be \(1, 5, 2, 32\) for W"),
        (replace(packed, absmax=replace(nested, codes=nested.codes[:, 1:])), torch.float32, r"absmax must be .*\[10\]"),
    ):
        with pytest.raises(ValueError, match=rule):
            dequantize_repacked(wrong, dtype)
    with pytest.raises(ValueError, match=r"out must have shape"):
        dequantize_repacked(packed, out=torch.empty(128, 5))


@EVERY_DTYPE
@pytest.mark.parametrize("m", [1, 9, 70, 300], ids="M{}".format)
def test_product_and_gradient_by_the_path_of_the_table(m: int, dtype: torch.dtype, as_on_a_gpu: None) -> None:
    weight = ops.to_fast_layout(quantized(33, 192), dtype)
    assert isinstance(weight, Repacked4bit)
    exact, w = reference.dequantize(weight).double(), reference.dequantize(weight, dtype)
    x, dy = normal(m, 192, seed=1).to(dtype).requires_grad_(), normal(m, 33, seed=2).to(dtype)
    y = ops.linear(x, weight)
    (dx,) = torch.autograd.grad(y, x, dy)
    assert_product_is_exact_enough(y.detach(), x.detach(), w.T, exact.T)
    assert_product_is_exact_enough(dx, dy, w, exact)


@pytest.mark.parametrize("m", [1, 300], ids="M{}".format)
def test_a_product_without_gradients_takes_the_path_that_is_named(m: int, as_on_a_gpu: None) -> None:
    x, weight = torch.eye(m, 128), repack(quantized(5, 128, "fp4"))
    path = table.choose(run.linear_case(x, weight))
    assert path.name == (table.DECODE if m == 1 else table.SCRATCH)
    assert torch.equal(ops.linear(x, weight)[:128], reference.dequantize(weight).T[:m])


def test_an_adapter_rides_in_the_product_of_many_rows(as_on_a_gpu: None) -> None:
    layers, matrices = [], (normal(3, 128, seed=1), normal(40, 3, seed=2))
    for weight in (quantized(40, 128), repack(quantized(40, 128))):
        layer = LoRALinear(QuantLinear(weight), 128, 40)
        layer.add("hat", AdapterConfig(3, 6.0, ()), *matrices, trainable=True)
        layer.active = (("hat", 1.0),)
        layers.append(layer)
    x = normal(300, 128)
    assert [layer.not_fused_reason(x) for layer in layers] == ["", ""]
    assert "takes the path 'Triton decode'" in layers[1].not_fused_reason(x[:3])
    assert torch.equal(layers[0](x), layers[1](x))
    torch.testing.assert_close(layers[1](x[:3]), layers[0](x[:3]))


def test_a_base_is_repacked_once_when_it_is_loaded(hf_folder: Path, as_on_a_gpu: None) -> None:
    tokens = torch.tensor([[1, 5, 9]])
    model = load(hf_folder / "base")
    linears = [module for module in model.modules() if isinstance(module, QuantLinear)]
    held = [layer.stored_weight for layer in linears]
    assert {type(weight) for weight in held} == {Repacked4bit}
    logits = model(tokens)
    assert all(layer.stored_weight is weight for layer, weight in zip(linears, held, strict=True))
    for layer in linears:
        layer.hold(unpack(layer.quantized))
    torch.testing.assert_close(model(tokens), logits)
