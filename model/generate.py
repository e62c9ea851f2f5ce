"""Text out of a model, a token at a time: greedy or sampled, for one prompt or a batch of them.

B rows, V vocabulary.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .decode import DecodeStep
from .llama import KVCache, Llama
from .tokenizer import Tokenizer


def generate(
    model: Llama,
    tokenizer: Tokenizer,
    prompts: str | Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    fixed_shapes: bool | None = None,
) -> list[str]:
    """The completions of the prompts, each up to its end-of-text token or `max_new_tokens`.

    temperature 0 takes the likeliest token; otherwise tokens are drawn by `sample`, from `seed`. Prompts of different
    lengths run as one batch and each gives what it gives alone. fixed_shapes as in `generate_tokens`.
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    rows = [tokenizer.encode(text, bos=True, eos=False) for text in texts]
    completions: list[list[int]] = [[] for _ in rows]
    steps = generate_tokens(
        model,
        rows,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        eos_id=tokenizer.eos_id,
        fixed_shapes=fixed_shapes,
    )
    for tokens in steps:
        for completion, token in zip(completions, tokens, strict=True):
            if token is not None:
                completion.append(token)
    return [tokenizer.decode(completion) for completion in completions]


def stream(
    model: Llama,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[str]:
    """One completion as it is written: pieces of text that join to what `generate` returns for the prompt."""
    ids = tokenizer.encode(prompt, bos=True, eos=False)
    tokens: list[int] = []
    shown = ""
    for (token,) in generate_tokens(
        model,
        [ids],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        eos_id=tokenizer.eos_id,
    ):
        if token is not None:
            tokens.append(token)
        text = tokenizer.decode(tokens)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # a character whose last byte is still to come
            yield text[len(shown) :]
            shown = text
    yield tokenizer.decode(tokens)[len(shown) :]


@torch.inference_mode()
def generate_tokens(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    eos_id: int | None = None,
    fixed_shapes: bool | None = None,
) -> Iterator[list[int | None]]:
    """The next token of every row, step by step; None for a row that has ended with `eos_id` (which is not given out).

    fixed_shapes: decode by `DecodeStep`, which a GPU replays as one CUDA graph; left out: where there is a GPU.
    Adapters must then stay as they are until the last token.
    Raises ValueError for an empty prompt, or a prompt that leaves no room in `config.max_seq_len`.
    """
    longest = max(map(len, prompts))
    room = model.config.max_seq_len - longest
    if min(map(len, prompts)) == 0 or room < 1:
        raise ValueError(f"a prompt must have 1 to {model.config.max_seq_len - 1} tokens, got {[*map(len, prompts)]}")
    weight = model.tok_embeddings.weight
    device = weight.device
    padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    tokens = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    capacity = longest + min(max_new_tokens, room)
    cache = KVCache(model.config, len(prompts), capacity, weight.dtype, device)
    generator = torch.Generator(device).manual_seed(seed)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    filler = padding if padding.any() else None
    step = DecodeStep(model, cache, filler)
    if fixed_shapes is None:
        fixed_shapes = device.type == "cuda"
    for index in range(min(max_new_tokens, room)):
        if fixed_shapes and index > 0:
            logits = step(tokens)
        else:
            logits = model.logits(model.hidden(tokens, cache, filler)[:, -1])
        chosen = sample(logits, temperature, top_p, generator)
        if eos_id is not None:
            ended |= chosen == eos_id
        if ended.all():
            return
        yield [None if end else token for token, end in zip(chosen.tolist(), ended.tolist(), strict=True)]
        tokens = chosen[:, None]


def sample(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> Tensor:
    """argmax for temperature 0, else a draw from softmax(logits / temperature) cut to its nucleus    (arXiv 1904.09751)

    A token stays while the probability of all likelier ones together is at most top_p, as in Meta's code.
    logits float32 [B, V] -> int64 [B].
    """
    if temperature == 0:
        return logits.argmax(-1)
    probability, order = torch.softmax(logits / temperature, dim=-1).sort(dim=-1, descending=True)
    before = probability.cumsum(-1) - probability
    probability = probability.masked_fill(before > top_p, 0.0)
    drawn = torch.multinomial(probability, 1, generator=generator)
    return order.gather(-1, drawn).squeeze(-1)
