"""The cost of a format: every figure computed a second way, from the whole tensor."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch

from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.eval.inspect.quant import inspect_quant, to_json
from lowrank.eval.inspect.quant_page import level_errors, levels_table, render, tensor_table, total_table
from lowrank.kernels import ops
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.reference.codes import code_counts
from lowrank.kernels.weights.quantized_weight import expected_bytes
from lowrank.model.checkpoint import open_checkpoint

FORMATS = ("nf4", "nf4-dq", "fp4", "fp4-dq", "int8")


@pytest.fixture(scope="module")
def looked_at(golden: Path):
    return inspect_quant(golden / "meta-tiny-gqa-mp2", FORMATS)


@pytest.fixture(scope="module")
def weights(golden: Path):
    return {name: value.float() for name, value in open_checkpoint(golden / "meta-tiny-gqa-mp2").tensors()}


def snr(w, error):
    return 10 * math.log10(float(w.double().square().sum() / error.double().square().sum()))


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_errors_entropy_and_bits_of_every_tensor(looked_at, weights, format) -> None:
    assert len(looked_at.tensors) == 7 * 2
    for tensor in looked_at.tensors:
        w, found = weights[tensor.name], tensor.formats[format]
        stored = ops.quantize(w, format)
        error = ops.dequantize(stored) - w
        assert found.mse == pytest.approx(float(error.double().square().mean()), rel=1e-6)
        assert found.snr_db == pytest.approx(snr(w, error), abs=1e-5)
        assert found.largest == float(error.abs().max())
        assert found.bits_per_weight == 8 * expected_bytes(tuple(w.shape), format) / w.numel()
        assert sum(found.codes) == w.numel()
        share = torch.tensor(found.codes).double() / w.numel()
        assert found.entropy_bits == pytest.approx(float(torch.special.entr(share).sum()) / math.log(2))


@pytest.mark.slow
def test_heads_are_rows_of_wq_wk_wv_and_columns_of_wo(looked_at, weights, golden: Path) -> None:
    h = open_checkpoint(golden / "meta-tiny-gqa-mp2").config.head_dim
    for tensor in looked_at.tensors:
        w, heads = weights[tensor.name], tensor.formats["nf4"].head_snr_db
        error = reference.dequantize(reference.quantize_4bit(w)) - w
        if ".attention." not in tensor.name:
            assert heads == ()
            continue
        axis = 1 if tensor.name.endswith("wo.weight") else 0
        parts = zip(w.split(h, dim=axis), error.split(h, dim=axis), strict=True)
        assert heads == pytest.approx([snr(*part) for part in parts], abs=1e-5)


def test_what_double_quantization_adds_is_the_difference_of_the_two_errors(looked_at) -> None:
    for tensor in looked_at.tensors:
        single, nested = tensor.formats["nf4"], tensor.formats["nf4-dq"]
        assert single.nesting_share is None and nested.codes == single.codes
        assert nested.nesting_share == pytest.approx(1 - single.mse / nested.mse)


def test_the_total_is_of_all_tensors_as_one(looked_at, weights) -> None:
    linears = [weights[tensor.name].flatten() for tensor in looked_at.tensors]
    whole = torch.cat(linears)
    error = torch.cat([reference.dequantize(reference.quantize_4bit(w)) - w for w in linears])
    total = looked_at.total["nf4"]
    assert looked_at.weights == whole.numel() == sum(total.codes)
    assert total.snr_db == pytest.approx(snr(whole, error), abs=1e-5)
    assert looked_at.study.levels["nf4"].error == pytest.approx(10 ** (-total.snr_db / 10), rel=5e-3)


def test_block_maxima_and_their_histogram(looked_at, weights) -> None:
    tensor = looked_at.tensors[0]
    maxima = weights[tensor.name].view(-1, 64).abs().amax(dim=1)
    assert tensor.absmax_quantiles[0] == float(maxima.min()) and tensor.absmax_quantiles[-1] == float(maxima.max())
    assert sum(looked_at.absmax_histogram) == pytest.approx(1)


def test_the_best_levels_are_better_than_those_of_any_format(looked_at) -> None:
    levels = looked_at.study.levels
    assert levels["lloyd-max"].error < min(levels[name].error for name in ("nf4", "fp4", "equal shares"))
    assert max(part.entropy_bits for part in levels.values()) == levels["equal shares"].entropy_bits
    for part in levels.values():
        assert sum(part.share) == pytest.approx(1) and sum(part.expected) == pytest.approx(1)


def test_codes_of_an_odd_number_of_weights() -> None:
    w = torch.linspace(-1, 1, 15).view(5, 3)
    for format, codes in (("nf4", 16), ("fp4", 16), ("int8", 255)):
        counts = code_counts(reference.quantize(w, format))
        assert len(counts) == codes and counts.sum() == 15


@pytest.mark.slow
def test_some_layers_alone(golden: Path) -> None:
    found = inspect_quant(golden / "meta-tiny-mha", ("nf4",), layers=[1])
    assert {tensor.name.split(".")[1] for tensor in found.tensors} == {"1"}


def test_mistakes_are_told(golden: Path, embedded: Path, tmp_path: Path) -> None:
    quantized = quantize_folder(golden / "meta-tiny-mha", tmp_path / "q")
    with pytest.raises(ValueError, match=r"is stored quantized: .* name the full-precision base"):
        inspect_quant(quantized)
    with pytest.raises(ValueError, match="layers must be of 0 to 5, got 6"):
        inspect_quant(embedded, layers=[6])
    with pytest.raises(ValueError, match=r"weights must be of .*got 'nf5'"):
        inspect_quant(embedded, ("nf4", "nf5"))


@pytest.mark.slow
def test_a_tensor_of_zeros_has_no_error_and_no_ratio(tmp_path: Path, golden: Path) -> None:
    base = shutil.copytree(golden / "meta-tiny-mha", tmp_path / "base")
    tensors = torch.load(base / "consolidated.00.pth", weights_only=True)
    tensors["layers.0.attention.wq.weight"].zero_()
    torch.save(tensors, base / "consolidated.00.pth")
    found = inspect_quant(base)
    zero = found.tensors[0].formats
    assert all(part.mse == 0 and part.snr_db is None for part in zero.values())
    assert "nan" not in render(found)
    json.dumps(to_json(found), allow_nan=False)


def test_the_page_and_the_tables_hold_every_tensor(looked_at) -> None:
    page = render(looked_at)
    assert not re.search(r"(src|href)=|url\(|@import|https?://|<script", page)
    assert all(tensor.name.removesuffix(".weight") in page for tensor in looked_at.tensors)
    for head, rows in (
        total_table(looked_at),
        tensor_table(looked_at),
        levels_table(looked_at.study),
        level_errors(looked_at.study),
    ):
        assert rows and all(len(row) == len(head) for row in rows)
