"""One side of the training bench, in a process of its own: it loads, and takes steps when it is told to.

    python -m lowrank.bench.train_workers PROVIDER FOLDER THREADS

reads lines of JSON {"steps": n} and answers each with {"seconds": [...], "losses": [...], "peak_bytes": ...}. FOLDER
holds `base` (Hugging Face's layout, bfloat16), `hat` (PEFT's files, where both sides start) and `tokens.pt`.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LR, CLIP = 2e-4, 0.3

Step = Callable[[Tensor], float]


def ours(folder: Path) -> Step:
    """The training step of `lowrank train` itself, on the hat that both sides start from."""
    from ..adapter_files import read_adapter
    from ..data.batching import Example
    from ..data.packing import rows_of_one
    from ..loader import load
    from ..train.config import TrainConfig
    from ..train.loop import Run
    from ..train.step import UnderWay, finish, take_batch

    model = load(folder / "base", "nf4-dq", torch.bfloat16)
    stored = read_adapter(folder / "hat", model.config)
    (one, *_) = stored.configs.values()
    config = TrainConfig.from_dict(
        {"adapter": {"rank": one.rank, "alpha": one.alpha}, "run": {"out": str(folder / "run")}}
    )
    tokens = torch.load(folder / "tokens.pt", weights_only=True)[0]
    run = Run(model, _examples(tokens, Example), config)
    run.begin(resume=False, overwrite=True)
    with torch.no_grad():
        for path in stored.pairs:
            pair = stored.in_layout(path, model.config)
            for matrix in ("lora_A", "lora_B"):
                run.parameters[f"{path}.{matrix}"].copy_(getattr(pair, matrix))

    def step(tokens: Tensor) -> float:
        batch = rows_of_one(_examples(tokens, Example))
        supervised, under_way = sum(row.supervised for row in batch), UnderWay()
        take_batch(model, batch, supervised, under_way, run.team)
        return float(finish([batch], under_way, run.optimizer, LR, CLIP, run.team)["loss"])

    return step


def _examples(tokens: Tensor, kind: Any) -> list[Any]:
    """Every token but the first is learned."""
    rows = [tuple(row) for row in tokens.tolist()]
    return [kind(str(number), row, (-100, *row[1:])) for number, row in enumerate(rows)]


def peft(folder: Path) -> Step:
    """transformers, PEFT and bitsandbytes as their users put them together: bf16 autocast, adapters in float32."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    configure: Any = BitsAndBytesConfig
    quantization = configure(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    base = AutoModelForCausalLM.from_pretrained(
        folder / "base", quantization_config=quantization, dtype=torch.bfloat16, device_map="cpu"
    )
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


PROVIDERS = {"ours": ours, "transformers+peft+bitsandbytes": peft}


def serve(step: Step, batches: Iterator[Tensor]) -> None:
    """Answers every line of the standard input."""
    from ..train.costs import peak_bytes

    for line in sys.stdin:
        seconds, losses = [], []
        for _ in range(json.loads(line)["steps"]):
            tokens = next(batches)
            started = time.perf_counter()
            losses.append(step(tokens))
            seconds.append(time.perf_counter() - started)
        answer = {"seconds": seconds, "losses": losses, "peak_bytes": peak_bytes(torch.device("cpu"))}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    serve(
        PROVIDERS[sys.argv[1]](Path(sys.argv[2])), iter(torch.load(Path(sys.argv[2]) / "tokens.pt", weights_only=True))
    )
