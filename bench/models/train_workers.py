"""The two sides of the training bench, each in a process of its own: see `worker`.

A job is a step on the tokens int64 [rows, length]; what is written down of it is the loss.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .worker import OURS, PEER, quantized_by_bitsandbytes, serve

LR, CLIP = 2e-4, 0.3

StepBatches = Callable[[Tensor], float]


def ours(folder: Path) -> StepBatches:
    """The training step of `lowrank train` itself, on the hat that both sides start from."""
    from lowrank.adapters.files import read_adapter
    from lowrank.checkpoints.load import load
    from lowrank.data.encoding.batching import Example
    from lowrank.data.encoding.packing import rows_of_one
    from lowrank.train.config import TrainConfig
    from lowrank.train.step import StepState, accumulate, finish
    from lowrank.train.trainer import Trainer

    model = load(folder / "base", "nf4-dq", torch.bfloat16)
    stored = read_adapter(folder / "hat", model.config)
    (one, *_) = stored.configs.values()
    config = TrainConfig.from_dict(
        {"adapter": {"rank": one.rank, "alpha": one.alpha}, "run": {"out": str(folder / "run")}}
    )
    tokens = torch.load(folder / "tokens.pt", weights_only=True)[0]
    run = Trainer(model, _examples(tokens, Example), config)
    run.prepared().__enter__()  # until the process ends
    with torch.no_grad():
        for path in stored.pairs:
            pair = stored.reorder_rope_rows(path, model.config)
            for matrix in ("lora_A", "lora_B"):
                run.parameters[f"{path}.{matrix}"].copy_(getattr(pair, matrix))

    def step(tokens: Tensor) -> float:
        batch = rows_of_one(_examples(tokens, Example))
        supervised, under_way = sum(row.supervised for row in batch), StepState()
        accumulate(model, batch, supervised, under_way, run.team)
        return float(finish([batch], under_way, run.optimizer, LR, CLIP, run.team)["loss"])

    return step


def _examples(tokens: Tensor, kind: Any) -> list[Any]:
    """Every token but the first is learned."""
    rows = [tuple(row) for row in tokens.tolist()]
    return [kind(str(number), row, (-100, *row[1:])) for number, row in enumerate(rows)]


def peft(folder: Path) -> StepBatches:
    """transformers, PEFT and bitsandbytes as their users put them together: bf16 autocast, adapters in float32."""
    from peft import PeftModel

    base = quantized_by_bitsandbytes(folder)
    base.config.use_cache = False
    model = PeftModel.from_pretrained(base, str(folder / "hat"), is_trainable=True)
    model.train()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=LR, weight_decay=0.0)

    def step(tokens: Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss)

    return step


PROVIDERS = {OURS: ours, PEER: peft}

if __name__ == "__main__":
    serve(PROVIDERS)
