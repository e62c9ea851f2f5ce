"""The two sides of the generation bench, each in a process of its own: see `worker`.

A job goes on from a prompt int64 [T], greedily, for NEW_TOKENS tokens whatever they are; these are written down.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .worker import OURS, PEER, quantized_by_bitsandbytes, serve

NEW_TOKENS = 64

Write = Callable[[Tensor], list[int]]


def ours(folder: Path) -> Write:
    """`lowrank generate`'s own loop, wearing the hat unmerged."""
    from lowrank.adapters import use_adapter
    from lowrank.adapters.files import load_adapter
    from lowrank.checkpoints.load import load
    from lowrank.model.generate import generate_tokens, unchanged

    model = load(folder / "base", "nf4-dq", torch.bfloat16)
    load_adapter(model, "bench", folder / "hat")
    use_adapter(model, "bench")

    def write(prompt: Tensor) -> list[int]:
        with unchanged(model):
            steps = generate_tokens(model, [prompt.tolist()], max_new_tokens=NEW_TOKENS)
            return [token for (token,) in steps if token is not None]

    return write


def peft(folder: Path) -> Write:
    """transformers' `generate` over PEFT and bitsandbytes, without autocast: the faster way to call it here."""
    from peft import PeftModel

    base = quantized_by_bitsandbytes(folder)
    base.generation_config.eos_token_id = None  # else min_new_tokens would forbid it, and the tokens could differ
    model: Any = PeftModel.from_pretrained(base, str(folder / "hat"))
    model.eval()

    @torch.inference_mode()
    def write(prompt: Tensor) -> list[int]:
        written: Tensor = model.generate(
            input_ids=prompt[None],
            attention_mask=torch.ones_like(prompt[None]),
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )
        return [int(token) for token in written[0, len(prompt) :]]

    return write


PROVIDERS = {OURS: ours, PEER: peft}

if __name__ == "__main__":
    serve(PROVIDERS)
