"""The logits behind prompts, and behind each further token of them; and where they are not finite, the layer at fault.

B rows, V vocabulary.
"""

import math
from collections.abc import Callable, Generator, Sequence
from contextvars import Context, copy_context
from typing import TypeVar

import torch
from torch import Tensor, nn

from .drafts import DraftedLogits, Lookup
from .llama import KVCache, Llama, Prefixes
from .static_decode import DecodeStep

Value = TypeVar("Value")


def room_of(model: Llama, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[int]:
    """The tokens that may be written behind each prompt.

    Raises ValueError for fewer than one, an empty prompt, and one that leaves no room in `config.max_seq_len`.
    """
    most = model.config.max_seq_len
    if not isinstance(max_new_tokens, int) or isinstance(max_new_tokens, bool) or max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens!r}")
    for length in map(len, prompts):
        if not 1 <= length < most:
            raise ValueError(f"a prompt must have 1 to {most - 1} tokens, got {[*map(len, prompts)]}")
    return [min(max_new_tokens, most - len(prompt)) for prompt in prompts]


class Forward:
    """The logits after the prompts, then those after one more token a row; in the context of its creation."""

    def __init__(
        self,
        model: Llama,
        prompts: Sequence[Sequence[int]],
        capacity: int,
        fixed_shapes: bool | None,
        drafts: bool | Lookup,
        prefixes: Prefixes | None,
    ) -> None:
        weight = model.tok_embeddings.weight
        device, longest = weight.device, max(map(len, prompts))
        self.model = model
        self.context = copy_context()
        self.prompts = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
        self.padding = padding if padding.any() else None
        self.cache = model.cache_type(model.config, len(prompts), capacity, weight.dtype, device)
        fixed = device.type == "cuda" if fixed_shapes is None else fixed_shapes
        is_plain = type(self.cache) is KVCache  # others have no buffers of keys that a window could look at
        self.step = DecodeStep(model, self.cache, self.padding) if fixed and is_plain else None
        self.seen = [self.prompts]
        self.prefixes = prefixes if len(prompts) == 1 and is_plain else None
        self.lookup = Lookup() if drafts is True else drafts or None
        self.drafted: DraftedLogits | None = None
        if len(prompts) != 1 or fixed or not is_plain or model.fused_blocks is None:
            self.lookup = None

    def __call__(self, chosen: Tensor | None) -> Tensor:
        """chosen int64 [B], or None for the prompts -> logits float32 [B, V]"""
        if chosen is None:
            return value_of(self.read())
        kept = self.kept(chosen)
        return self.go_on(chosen) if kept is None else kept

    def read(self) -> Generator[None, None, Tensor]:
        """The logits behind the prompts, as the value of the last step: it stops where a prompt is read in parts."""
        if self.prefixes is None:
            hidden = self.context.run(self.model.hidden, self.prompts, self.cache, self.padding)
        else:
            parts = self.prefixes.read(self.model, self.prompts, self.cache)
            hidden = yield from _in_context(self.context, parts)
        if self.lookup is not None:
            self.lookup.add(self.prompts[0].tolist())
            self.drafted = DraftedLogits(self.model, self.cache, self.lookup)
        return self.context.run(self.model.logits, hidden[:, -1])

    def kept(self, chosen: Tensor) -> Tensor | None:
        """The logits behind one more token a row, if there are some without a pass: asked once before `go_on`."""
        self.seen.append(chosen[:, None])
        return None if self.drafted is None else self.context.run(self.drafted.kept, chosen)

    def go_on(self, chosen: Tensor) -> Tensor:
        """The logits behind one more token a row, of which none are kept."""
        if self.step is not None:
            return self.context.run(self.step, chosen[:, None])
        if self.drafted is not None:
            return self.context.run(self.drafted.verified, chosen)
        hidden = self.context.run(self.model.hidden, chosen[:, None], self.cache, self.padding)
        return self.context.run(self.model.logits, hidden[:, -1])

    def check(self, logits: Tensor, ended: Sequence[bool]) -> None:
        """Raises FloatingPointError naming the first layer that is not finite if the logits of a living row are not."""
        largest = logits.abs().amax(-1).tolist()  # infinite, or NaN, where one of them is
        wrong = [row for row, size in enumerate(largest) if not math.isfinite(size) and not ended[row]]
        if wrong:
            row, tokens = wrong[0], torch.cat(self.seen, dim=1)
            begin = 0 if self.padding is None else int(self.padding[row])
            layer = self.context.run(first_not_finite, self.model, tokens[row : row + 1, begin:])
            raise FloatingPointError(
                f"the logits of row {row} are not finite behind {tokens.shape[1] - begin} tokens: "
                f"{layer or 'output'} is the first layer that gives NaN or infinity"
            )


@torch.inference_mode()
def first_not_finite(model: Llama, tokens: Tensor) -> str:
    """The first module, in the order of the forward pass, that puts out what is not finite; "" if none does

    tokens  int64 [1, T]
    """
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if not found and isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    fused, model.fused_blocks = model.fused_blocks, None
    try:
        model.logits(model.hidden(tokens))
    finally:
        model.fused_blocks = fused
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def value_of(steps: Generator[object, None, Value]) -> Value:
    """The value that a generator returns, once it has ended."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: Value = end.value
            return value


def _in_context(context: Context, steps: Generator[None, None, Value]) -> Generator[None, None, Value]:
    """The generator, each of whose steps runs in the context."""
    while True:
        try:
            context.run(next, steps)
        except StopIteration as end:
            value: Value = end.value
            return value
        yield
