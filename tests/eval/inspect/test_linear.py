"""The microscope: what it shows is what is stored, and what it adds up is what the forward pass has, bit for bit."""

import json
import re
from pathlib import Path

import pytest
import torch

from lowrank.adapters import use_adapter
from lowrank.adapters.files import load_adapter
from lowrank.adapters.merge import merge_folder
from lowrank.checkpoints.load import load, load_tokenizer
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.eval.inspect.linear import inspect_linear, to_json
from lowrank.eval.inspect.linear_page import render
from lowrank.kernels.weights import codebooks
from lowrank.model.checkpoint import open_checkpoint

TEXT = "The balance sheet shows revenue of $12.5 million"
FORMATS = ("nf4-dq", "nf4", "fp4", "fp4-dq", "int8")


@pytest.fixture(scope="module")
def hf_embedded(embedded: Path, embedded_hat, tmp_path_factory: pytest.TempPathFactory):
    """The embedded base in Hugging Face's layout (with a hat merged in)."""
    out = tmp_path_factory.mktemp("hf") / "base"
    merge_folder(embedded, embedded_hat, out, "fp16", format="hf")
    return out


def hook_value(base, path, row, token, weights, hat=None, force=False):
    """The output of a linear in the model's own forward pass, taken by a hook of the test's own.

    With an adapter the one product and the other are taken apart by a second hook, as the microscope does.
    """
    model = load(base, weights, torch.float32)
    if hat is not None:
        load_adapter(model, "worn", hat, force=force)
        use_adapter(model, "worn")
    seen = []
    layer = model.get_submodule(path)
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    if hat is not None:
        layer.base.register_forward_hook(lambda *_: None)
    with torch.no_grad():
        model(torch.tensor([load_tokenizer(base).encode(TEXT, bos=True, eos=False)]))
    return float(seen[0][0, token, row])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "path", "worn"),
    [
        *((weights, "layers.0.attention.wq", True) for weights in FORMATS),
        ("nf4-dq", "layers.5.feed_forward.w2", True),
        ("nf4-dq", "layers.5.feed_forward.w2", False),
    ],
    ids=str,
)
def test_the_sum_is_the_forward_pass_bit_for_bit(embedded: Path, embedded_hat, path, weights, worn) -> None:
    hat = embedded_hat if worn else None
    found = inspect_linear(embedded, path, row=17, block=2, text=TEXT, token=3, adapter=hat, weights=weights).product
    assert found.total == found.forward == hook_value(embedded, path, 17, 3, weights, hat)
    assert found.is_exact and found.is_within and abs(found.forward - found.by_hand) <= found.bound
    assert (found.hat is not None) == worn
    if found.hat:
        inner = sum(a * b for a, b in zip(found.hat.inner, found.hat.outer, strict=True))
        assert found.hat.value == pytest.approx(found.hat.scaling * inner, rel=1e-4, abs=1e-6)


def test_a_base_in_hugging_faces_layout_is_looked_at_in_its_own_order(hf_embedded, embedded_hat) -> None:
    path = "layers.1.attention.wq"
    arguments = {"row": 5, "block": 0, "text": TEXT, "adapter": embedded_hat, "weights": "nf4", "force": True}
    found = inspect_linear(hf_embedded, "model.layers.1.self_attn.q_proj", **arguments)
    assert found.path == path and found.product.is_exact and found.product.is_within
    assert found.product.forward == hook_value(hf_embedded, path, 5, -1, "nf4", embedded_hat, force=True)
    assert "channel 21 (half layout)" in found.where


@pytest.mark.slow
@pytest.mark.parametrize("weights", FORMATS)
def test_the_block_is_what_is_stored(embedded: Path, weights) -> None:
    found = inspect_linear(embedded, "layers.2.attention.wk", row=9, block=1, text="x", weights=weights)
    w = dict(open_checkpoint(embedded).tensors())["layers.2.attention.wk.weight"].float()
    layer = load(embedded, weights).get_submodule("layers.2.attention.wk")
    block = found.block
    assert [(weight.row, weight.column) for weight in block.weights] == [(9, column) for column in range(64, 128)]
    assert [weight.original for weight in block.weights] == w[9, 64:128].tolist()
    assert [weight.value for weight in block.weights] == layer.dequantize()[9, 64:128].tolist()
    if weights == "int8":
        assert block.absmax == float(w[9].abs().max())
    elif weights.endswith("-dq"):
        nested = block.nested
        assert nested.exact == float(w[9, 64:128].abs().max())
        expected = torch.tensor(nested.level) * torch.tensor(nested.nested_absmax) + torch.tensor(nested.offset)
        assert block.absmax == float(expected)
    else:
        assert block.absmax == float(w[9, 64:128].abs().max()) and block.nested is None


def test_levels_are_the_codebooks(embedded: Path) -> None:
    found = inspect_linear(embedded, "layers.0.attention.wo", row=0, block=0, text="x", weights="fp4")
    for weight in found.block.weights:
        assert weight.level == float(codebooks.fp4()[weight.code])


def test_a_quantized_folder_shows_what_it_has(embedded: Path, tmp_path: Path) -> None:
    quantized = quantize_folder(embedded, tmp_path / "q", "nf4")
    found = inspect_linear(quantized, "layers.0.attention.wq", row=0, block=0, text="x")
    assert found.block.format == "nf4" and found.product.unquantized is None and found.product.is_exact
    assert all(weight.original is None for weight in found.block.weights)
    assert "-" in render(found)


@pytest.mark.slow
def test_the_block_is_its_share_of_the_sum(embedded: Path) -> None:
    parts = [
        inspect_linear(embedded, "layers.0.attention.wv", row=3, block=block, text="x").product for block in range(3)
    ]
    assert sum(part.block for part in parts) == pytest.approx(parts[0].by_hand, abs=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "layers.6.attention.wq"}, "unknown linear 'layers.6.attention.wq': layers.0 to layers.5"),
        ({"path": "norm"}, "unknown linear 'norm'"),
        ({"row": 192}, "row must be of 0 to 191, got 192: layers.0.attention.wq is 192 x 192"),
        ({"row": -1}, "row must be of 0 to 191, got -1"),
        ({"block": 3}, "block must be of 0 to 2, got 3"),
        ({"token": 2}, "token must be of 0 to 1, or negative from the end, got 2"),
        ({"weights": "fp32"}, "weights must be one of int8, nf4"),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_mistakes_are_told(embedded: Path, changes, message) -> None:
    arguments = {"path": "layers.0.attention.wq", "row": 0, "block": 0, "text": "x", **changes}
    with pytest.raises(ValueError, match=re.escape(message)):
        inspect_linear(embedded, **arguments)


def test_the_page_marks_the_token_and_holds_the_block(embedded: Path, embedded_hat) -> None:
    found = inspect_linear(embedded, "layers.0.attention.wq", row=5, block=1, text="<b>&", adapter=embedded_hat)
    page = render(found)
    assert page.count("class=chosen") == 1 and "<b>&" not in page
    assert not re.search(r"(src|href)=|url\(|@import|https?://|<script", page)
    assert all(f"[5, {column}]" in page for column in range(64, 128))
    assert json.loads(json.dumps(to_json(found), allow_nan=False))["product"]["exact"] is True
