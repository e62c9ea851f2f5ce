"""When all blocks are decoded in one call, that it gives what the modules give, and that it sees every change."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lowrank
from lowrank.kernels.cpu import library
from lowrank.kernels.dispatch.run import ROWS_AT_ONCE
from lowrank.layers import model_snapshot
from lowrank.layers.cpu_decode import FusedBlocks
from lowrank.layers.lora import AdapterConfig
from lowrank.layers.recompute import use_ops
from lowrank.model.generate import complete, generate_tokens
from lowrank.model.llama import TORCH_OPS, KVCache, Llama

from .conftest import fill

pytestmark = pytest.mark.skipif(
    bool(library.unavailable_reason()), reason=library.unavailable_reason() or "the library is there"
)

PROMPT = [1, 5, 9, 13, 17]


def steps(
    model: Llama, tokens: Tensor, padding: Tensor | None = None, before: Callable[[int], Any] | None = None
) -> Tensor:
    """Logits of the prompts and of every token behind them; `before` is told the number of each step."""
    cache = KVCache(model.config, len(tokens), 16, model.tok_embeddings.weight.dtype, torch.device("cpu"))
    seen = []
    with torch.inference_mode():
        for number, part in enumerate([tokens[:, :3], *tokens[:, 3:].split(1, dim=1)]):
            if before:
                before(number)
            seen.append(model(part, cache, padding))
    return torch.cat(seen, dim=1)


def by_modules(model: Llama, *given: Any, **also: Any) -> Tensor:
    """The same, with one module after another."""
    kept, model.fused_blocks = model.fused_blocks, None
    try:
        return steps(model, *given, **also)
    finally:
        model.fused_blocks = kept


def random(*shape: int) -> Tensor:
    return torch.randint(3, 60, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("weights", ["nf4-dq", "fp4", "int8", "bf16", "dequant:nf4"])
@pytest.mark.parametrize("folder", ["hf-tiny-qlora/base", "meta-tiny-gqa-mp2"])
def test_it_is_what_the_modules_give(
    folder: str, weights: str, dtype: torch.dtype, golden: Path, calls: list[int]
) -> None:
    model = lowrank.load(golden / folder, weights, dtype=dtype)
    for tokens, padding in ((random(1, 9), None), (random(2, 9), torch.tensor([2, 0]))):
        expected = by_modules(model, tokens, padding)
        assert not calls
        assert torch.equal(steps(model, tokens, padding), expected)
        assert calls == [len(tokens)] * 6
        calls.clear()


def test_greedy_tokens_in_a_hat(model: Llama, calls: list[int]) -> None:
    def written() -> list[list[int | None]]:
        return list(generate_tokens(model, [PROMPT, PROMPT[:2]], max_new_tokens=8))

    fused_blocks, made = written(), len(calls)
    model.fused_blocks = None
    assert written() == fused_blocks and made == 7 == len(calls)


def prompts_of_many_lengths(count: int) -> list[list[int]]:
    return [[*PROMPT[: 2 + number % 4], 21 + number] for number in range(count)]


def written(model: Llama, count: int, **options: Any) -> list[list[int | None]]:
    """The tokens of a batch whose rows end at the fifth one that is divisible by 3, or after 20."""
    left = [5] * count

    def is_last(row: int, token: int) -> bool:
        left[row] -= token % 3 == 0
        return left[row] == 0

    prompts = prompts_of_many_lengths(count)
    return list(generate_tokens(model, prompts, max_new_tokens=20, ends=is_last, **options))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"temperature": 1.5, "seed": 5}], ids=["greedy", "drawn"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_row_that_has_ended_is_computed_no_more_and_no_other_changes(
    dtype: torch.dtype, options: dict[str, Any], hf_folder: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lowrank.load(hf_folder / "base", "nf4-dq", dtype=dtype)
    lowrank.add_adapter(model, "first", rank=4)
    fill(model, "first", 0)
    lowrank.use_adapter(model, "first")
    logits: list[Tensor] = []
    of_hidden = Llama.logits
    monkeypatch.setattr(Llama, "logits", lambda self, hidden: (logits.append(of_hidden(self, hidden)), logits[-1])[1])
    found = written(model, 8, **options)
    living = [sum(token is not None for token in step) for step in found]
    fewer, ours = [*calls], [*logits]
    assert fewer == living[1:] and fewer[0] == 8 and fewer[-1] < 8
    logits.clear()
    monkeypatch.setattr(KVCache, "living", property(lambda self: None, lambda self, rows: None), raising=False)
    assert written(model, 8, **options) == found
    for step, one, other in zip(found, ours, logits, strict=True):
        rows = [row for row, token in enumerate(step) if token is not None]
        assert torch.equal(one[rows], other[rows])


def test_more_rows_than_have_the_same_bits_are_all_computed_to_the_end(model: Llama, calls: list[int]) -> None:
    found = written(model, 9)
    assert None in found[-1] and set(calls) == {9}


CHANGES: dict[str, Callable[[Llama], Any]] = {
    "another hat": lambda model: lowrank.use_adapter(model, "second"),
    "no hat": lambda model: lowrank.use_adapter(model, None),
    "another weight": lambda model: lowrank.use_adapter(model, {"first": 0.5}),
    "numbers in place": lambda model: fill(model, "first", 7),
    "other memory": lambda model: setattr(wq(model).lora_B["first"], "data", torch.ones(wq(model).out_features, 4)),
    "another parameter": lambda model: wq(model).lora_A.__setitem__(
        "first", nn.Parameter(torch.ones(4, model.config.dim))
    ),
    "another matrix": lambda model: setattr(
        model.layers[0].attention, "wk", lowrank.quantize(torch.ones(wk(model).out_features, model.config.dim), "nf4")
    ),
    "a scaling": lambda model: wq(model).configs.update(first=AdapterConfig(4, 1.0, ())),
    "the base of a layer": lambda model: setattr(
        wq(model), "base", lowrank.quantize(torch.ones(wq(model).out_features, model.config.dim), "nf4")
    ),
    "codes in place": lambda model: wq(model).base.codes.zero_(),
    "one block less": lambda model: setattr(model, "layers", model.layers[:1]),
    "a norm in place": lambda model: model.layers[1].ffn_norm.weight.data.mul_(2),
}


def wq(model: Llama) -> Any:
    return model.layers[0].attention.wq


def wk(model: Llama) -> Any:
    return model.layers[0].attention.wk


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_between_two_tokens_is_seen(change: Callable[[Llama], Any], model: Llama, calls: list[int]) -> None:
    def before(of: Llama) -> Callable[[int], Any]:
        return lambda number: change(of) if number == 3 else None

    other = copy.deepcopy(model)
    expected = by_modules(other, random(1, 9), before=before(other))
    unchanged = steps(model, random(1, 9))
    calls.clear()
    ours = steps(model, random(1, 9), before=before(model))
    assert torch.equal(ours, expected) and len(calls) == 6
    assert not torch.equal(ours[:, 5:], unchanged[:, 5:])


def test_weights_that_move_in_a_block_that_says_they_stay_are_read_where_they_lay(
    model: Llama, calls: list[int]
) -> None:
    def move(number: int) -> None:
        if number == 3:
            norm = model.layers[1].ffn_norm.weight
            norm.data = torch.full_like(norm, 7.0)

    assert model.fused_blocks is not None
    expected = steps(model, random(1, 9))
    with model.fused_blocks.unchanged():
        ours = steps(model, random(1, 9), before=move)
    assert torch.equal(ours, expected)
    assert not torch.equal(steps(model, random(1, 9)), expected)


REASONS: dict[str, Callable[[Llama], Any]] = {
    "two hats": lambda model: lowrank.use_adapter(model, {"first": 0.5, "second": 0.5}),
    "a hat for each row": lambda model: lowrank.use_adapter(model, ["first", "second"]),
    "a hook of a block": lambda model: model.layers[1].register_forward_hook(lambda *given: None),
    "a hook of a norm": lambda model: model.norm.register_forward_pre_hook(lambda *given: None),
    "a hook of a linear": lambda model: wq(model).register_forward_hook(lambda *given: None),
    "a hook of its base": lambda model: wq(model).base.register_forward_pre_hook(lambda *given: None),
    "another forward": lambda model: setattr(model.layers[0], "forward", model.layers[0].forward),
    "plain operations": lambda model: use_ops(model, TORCH_OPS),
    "the layers the other way round": lambda model: setattr(model, "layers", nn.ModuleList(reversed(model.layers))),
    "another eps": lambda model: setattr(model.layers[0].ffn_norm, "eps", 1e-3),
    "another kind of norm": lambda model: setattr(model, "norm", nn.RMSNorm(model.config.dim)),
    "rows that are cached elsewhere": lambda model: setattr(model.layers[1].attention, "layer", 0),
    "a norm of another dtype": lambda model: model.norm.double(),
}


def test_a_hat_in_16_bits_is_read_again_for_every_token(model: Llama, calls: list[int]) -> None:
    matrix = wq(model).lora_A["first"]
    matrix.data = matrix.data.bfloat16()
    before = steps(model, random(1, 9))
    ours = steps(model, random(1, 9), before=lambda number: matrix.data.fill_(1) if number == 5 else None)
    assert torch.equal(ours[:, :7], before[:, :7]) and not torch.equal(ours, before) and len(calls) == 12


@pytest.mark.slow
@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS)
def test_where_anything_else_is_asked_the_modules_run(
    reason: Callable[[Llama], Any], model: Llama, calls: list[int]
) -> None:
    reason(model)
    if model.norm.weight.dtype == torch.float64:
        model.output.double()
    ours = steps(model, random(2, 9))
    assert not calls and torch.equal(ours, by_modules(model, random(2, 9)))


def test_a_global_hook_is_told_of_every_module(model: Llama, calls: list[int]) -> None:
    told = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *given: told.append(module))
    try:
        steps(model, random(1, 4))
    finally:
        handle.remove()
    assert not calls and told.count(model.layers[0]) == 2


def test_with_gradients_the_modules_run(model: Llama, calls: list[int]) -> None:
    cache = KVCache(model.config, 1, 8, torch.float32, torch.device("cpu"))
    model(random(1, 3), cache)
    assert model(random(1, 1), cache).requires_grad and not calls


def test_two_texts_in_turns_do_not_mix(model: Llama, calls: list[int]) -> None:
    alone = [list(generate_tokens(model, [prompt], max_new_tokens=6)) for prompt in (PROMPT, PROMPT[::-1])]
    streams = [generate_tokens(model, [prompt], max_new_tokens=6) for prompt in (PROMPT, PROMPT[::-1])]
    fused_projections = list(zip(*streams, strict=True))
    assert [list(tokens) for tokens in zip(*fused_projections, strict=True)] == alone and len(calls) == 20


class Letters:
    """A tokenizer whose tokens are written as they are."""

    eos_id, eos_ids, spaced, vocab_size = 2, (2,), False, 64

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        return [1, *map(ord, text)]

    def token_bytes(self, token: int) -> bytes:
        return b"%d " % token

    def rows_without_piece(self, rows: int) -> list[int]:
        return []


class Changing:
    """A constraint that puts on another hat after its third token."""

    unfinished = 0

    def __init__(self, model: Llama) -> None:
        self.model, self.taken = model, 0

    def is_allowed(self, token: int) -> bool:
        return True

    def instead(self, token: int) -> Tensor:
        raise AssertionError("every token is allowed")

    def take(self, token: int) -> None:
        self.taken += 1
        if self.taken == 3:
            lowrank.use_adapter(self.model, "second")


def test_a_whole_text_compares_the_attributes_once_and_sees_another_hat(
    model: Llama, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[None] = []
    attributes = model_snapshot.ModelSnapshot._has_same_attributes
    monkeypatch.setattr(
        model_snapshot.ModelSnapshot,
        "_has_same_attributes",
        lambda snapshot: (compared.append(None), attributes(snapshot))[1],
    )

    def written(*constraints: Changing) -> tuple[int, ...]:
        lowrank.use_adapter(model, "first")
        return complete(model, Letters(), "!)*", max_new_tokens=8, constraints=constraints or None, drafts=False)[
            0
        ].tokens

    plain = written()
    made = len(calls)
    assert made >= 6 and not compared  # described once, at its first token
    changed = written(Changing(model))
    assert len(compared) == 2  # at the first token, and at the one behind the change
    model.fused_blocks = None
    assert written() == plain and written(Changing(model)) == changed != plain


def test_many_rows_are_left_to_the_modules(model: Llama, calls: list[int]) -> None:
    tokens = random(ROWS_AT_ONCE + 1, 5)
    assert torch.equal(steps(model, tokens), by_modules(model, tokens)) and not calls


def test_a_copy_of_a_model_describes_itself(model: Llama) -> None:
    tokens = random(1, 6)
    before = steps(model, tokens)
    other = copy.deepcopy(model)
    assert isinstance(other.fused_blocks, FusedBlocks) and other.fused_blocks is not model.fused_blocks
    fill(model, "first", 9)
    assert torch.equal(steps(other, tokens), before) and not torch.equal(steps(model, tokens), before)
