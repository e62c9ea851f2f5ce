"""The model against Meta's reference code, and its parts against their equations."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lowrank.checkpoints.load import load
from lowrank.kernels.llama_ops.cpu import CPU_OPS
from lowrank.model.config import PRESETS, ModelConfig
from lowrank.model.llama import TORCH_OPS, KVCache, Llama, Ops, rope_angles
from lowrank.model.packed_texts import attention_mask

OPS = pytest.mark.parametrize("ops", [TORCH_OPS, CPU_OPS], ids=["plain", "lean"])
META = pytest.mark.parametrize("folder", ["meta-tiny-mha", "meta-tiny-gqa-mp2"])


def cache_for(model: Llama, batch: int, capacity: int) -> KVCache:
    return KVCache(model.config, batch, capacity, torch.float32, torch.device("cpu"))


def to_half_layout(w: Tensor, heads: int) -> Tensor:
    """Hugging Face's permutation of wq and wk when it converts Meta's weights."""
    rows, columns = w.shape
    return w.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


@META
def test_logits_of_meta(folder: str, golden: Path, assert_logits_equal: Callable[[Tensor, Tensor], None]) -> None:
    stored = load_file(golden / folder / "reference.safetensors")
    assert_logits_equal(load(golden / folder, "fp32")(stored["tokens"]), stored["logits"])


@META
def test_logits_of_meta_through_the_cache(
    folder: str, golden: Path, assert_logits_equal: Callable[[Tensor, Tensor], None]
) -> None:
    stored = load_file(golden / folder / "reference.safetensors")
    model, tokens = load(golden / folder, "fp32"), stored["tokens"]
    cache = cache_for(model, 2, 48)
    steps = [tokens[:, :17], *tokens[:, 17:].split(1, dim=1)]
    assert_logits_equal(torch.cat([model(step, cache) for step in steps], dim=1), stored["logits_incremental"])


@OPS
@pytest.mark.parametrize("pieces", [[1] * 12, [5, 4, 3], [5, 1, 1, 4, 1], [1, 11], [12]], ids=str)
def test_a_text_may_enter_the_cache_in_any_pieces(
    pieces: list[int], ops: Ops, make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    model, tokens = make_llama(ops=ops), random_tokens(2, 12)
    cache = cache_for(model, 2, 12)
    logits = torch.cat([model(piece, cache) for piece in tokens.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(logits, make_llama()(tokens))
    assert cache.length == 12


def test_a_full_cache_refuses_more(make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]) -> None:
    model = make_llama()
    cache = cache_for(model, 1, 4)
    model(random_tokens(1, 3), cache)
    with pytest.raises(ValueError, match=r"holds 4 positions, got 3 \+ 2"):
        model(random_tokens(1, 2), cache)
    assert cache.length == 3


@OPS
def test_what_lies_in_the_cache_beyond_its_length_is_never_read(
    ops: Ops, make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    model, cache = make_llama(ops=ops), cache_for(make_llama(), 1, 9)
    cache.k.fill_(torch.nan)
    cache.v.fill_(torch.nan)
    logits = torch.cat([model(piece, cache) for piece in random_tokens(1, 5).split([3, 1, 1], dim=1)], dim=1)
    torch.testing.assert_close(logits, model(random_tokens(1, 5)))


@pytest.mark.parametrize("kv_heads", [4, 2, 1], ids=["mha", "gqa", "mqa"])
def test_the_rope_layouts_are_one_model_under_the_permutation(
    kv_heads: int, make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    model, permuted = make_llama(n_kv_heads=kv_heads), make_llama(n_kv_heads=kv_heads, rope_layout="half")
    tokens = random_tokens(2, 9)
    assert not torch.allclose(permuted(tokens), model(tokens), atol=1e-3)
    for block in permuted.layers:
        block.attention.wq.weight.copy_(to_half_layout(block.attention.wq.weight, 4))
        block.attention.wk.weight.copy_(to_half_layout(block.attention.wk.weight, kv_heads))
    torch.testing.assert_close(permuted(tokens), model(tokens))


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0, 1e6])
@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_rope_turns_each_pair_as_a_complex_number(layout: str, theta: float, make_llama: Callable[..., Llama]) -> None:
    config = make_llama(rope_theta=theta).config
    h = config.head_dim
    x = torch.randn(2, 5, 3, h, generator=torch.Generator().manual_seed(4))
    positions = torch.tensor([[0, 1, 2, 3, 4], [7, 8, 9, 10, 63]])
    angle = positions[..., None, None] * theta ** (-torch.arange(0, h, 2).double() / h)
    pairs = x.unflatten(-1, (-1, 2) if layout == "interleaved" else (2, -1))
    a, b = pairs.double().unbind(-1 if layout == "interleaved" else -2)
    turned = torch.complex(a, b) * torch.polar(torch.ones_like(angle), angle)
    expected = torch.stack([turned.real, turned.imag], dim=-1 if layout == "interleaved" else -2).flatten(-2)
    ours = TORCH_OPS.rope(x, *rope_angles(positions, config), layout)
    # An angle up to 63 is rounded by 2^-19 in float32, the power of theta behind it by a few times 2^-24.
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=63 * 2**-20)


def test_rope_theta_reaches_the_logits(make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]) -> None:
    tokens = random_tokens(1, 16)
    usual, long = make_llama()(tokens), make_llama(rope_theta=500_000.0)(tokens)
    torch.testing.assert_close(long[:, 0], usual[:, 0])  # position 0 is not turned
    assert (long[:, 1:] - usual[:, 1:]).abs().max() > 1e-3


def test_rms_norm_by_hand() -> None:
    x, weight = torch.tensor([[3.0, -4.0, 0.0, 0.0]]), torch.tensor([2.0, 1.0, 1.0, 1.0])
    # mean of squares 6.25, root 2.5
    assert TORCH_OPS.rms_norm(x, weight, 0.0).tolist() == [pytest.approx([2.4, -1.6, 0, 0])]
    assert TORCH_OPS.rms_norm(x, weight, 18.75).tolist() == [pytest.approx([1.2, -0.8, 0, 0])]


def test_swiglu_by_hand() -> None:
    gate, up = torch.tensor([0.0, 2.0, -2.0]), torch.tensor([5.0, 3.0, 3.0])
    sigmoid = 1 / (1 + 2.718281828459045**-2)
    assert TORCH_OPS.swiglu(gate, up).tolist() == pytest.approx([0, 6 * sigmoid, -6 * (1 - sigmoid)])


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_attention_is_the_softmax_of_scores_over_earlier_positions(kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(5)
    q, k, v = (torch.randn(2, heads, 6, 8, generator=generator).double() for heads in (4, kv_heads, kv_heads))
    expected = torch.empty_like(q).fill_(torch.nan)
    for head in range(4):
        for t in range(6):
            served = head * kv_heads // 4
            scores = (k[:, served, : t + 1] * q[:, head, t, None]).sum(-1) / 8**0.5
            expected[:, head, t] = (scores.softmax(-1)[..., None] * v[:, served, : t + 1]).sum(1)
    torch.testing.assert_close(TORCH_OPS.attention(q, k, v, None), expected)
    for first in (2, 5):  # the last sees all
        torch.testing.assert_close(TORCH_OPS.attention(q[:, :, first:], k, v, None), expected[:, :, first:])


def test_the_mask_by_hand() -> None:
    places = ((0, 3), (3, 1), (1, 2))
    continued = attention_mask(1, 2, torch.tensor([[0]]), torch.device("cpu"))
    padded = attention_mask(0, 3, torch.tensor([[0], [2]]), torch.device("cpu"))
    assert all(attention_mask(*place, None, torch.device("cpu")) is None for place in places)
    assert continued.int().tolist() == [[[[1, 1, 0], [1, 1, 1]]]]
    assert padded.int().tolist() == [[[[1, 0, 0], [1, 1, 0], [1, 1, 1]]], [[[1, 0, 0], [0, 1, 0], [0, 0, 1]]]]


def test_a_tied_head_is_the_embedding(make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]) -> None:
    model = make_llama(tie_embeddings=True)
    assert model.output.weight is model.tok_embeddings.weight
    assert {*dict(model.named_parameters())} == {*model.config.parameter_shapes()}
    hidden = model.hidden(random_tokens(1, 4))
    torch.testing.assert_close(model.logits(hidden), hidden @ model.tok_embeddings.weight.T)


@OPS
@pytest.mark.parametrize("cached", [False, True], ids=["whole", "cached"])
def test_a_row_padded_at_the_left_gives_what_it_gives_alone(
    cached: bool, ops: Ops, make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    model, rows = make_llama(ops=ops), [random_tokens(9)[:length] for length in (9, 4, 1)]
    padding = torch.tensor([9 - len(row) for row in rows])
    batch = torch.stack([torch.nn.functional.pad(row, (9 - len(row), 0), value=7) for row in rows])
    if cached:
        cache = cache_for(model, 3, 9)
        logits = torch.cat([model(part, cache, padding) for part in batch.split([5, 1, 1, 2], dim=1)], dim=1)
    else:
        logits = model(batch, padding=padding)
    for row, padded in zip(rows, logits, strict=True):
        torch.testing.assert_close(padded[-len(row) :], model(row[None])[0])


@pytest.mark.parametrize("padding", [[-1, 0, 0], [9, 0, 0], [0, 0]])
def test_padding_that_fills_a_row_of_the_cache_is_refused(
    padding: list[int], make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    model = make_llama()
    with pytest.raises(ValueError, match="padding must be 0 to 8 for each of 3 rows"):
        model(random_tokens(3, 5), cache_for(model, 3, 9), torch.tensor(padding))


def test_gradient_checkpointing_changes_no_gradient(
    make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    tokens, gradients = random_tokens(2, 7), []
    for checkpointing in (False, True):
        model = make_llama().requires_grad_()
        model.gradient_checkpointing = checkpointing
        model(tokens).logsumexp(-1).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_gradient_checkpointing_runs_each_block_twice(
    make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    model, runs = make_llama().requires_grad_(), []
    model.gradient_checkpointing = True
    model.layers[0].feed_forward.w1.register_forward_hook(lambda *_: runs.append("w1"))
    logits = model(random_tokens(1, 3))
    assert len(runs) == 1
    logits.sum().backward()
    assert len(runs) == 2


@pytest.mark.parametrize("preset", ["7b", "13b", "70b"])
def test_the_modules_have_the_parameters_of_the_config(preset: str) -> None:
    config: ModelConfig = PRESETS[preset]
    with torch.device("meta"):
        model = Llama(config)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == config.parameter_shapes()


def test_logits_are_float32_whatever_the_model_computes_in(
    make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    assert make_llama().bfloat16()(random_tokens(1, 4)).dtype == torch.float32
