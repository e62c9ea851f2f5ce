"""One side of a bench in turns, in a process of its own: it loads, and does the next jobs when it is told to.

    python -m lowrank.bench.NAME PROVIDER FOLDER THREADS

reads lines of JSON {"count": n} and answers each with {"seconds": [...], "results": [...], "peak_bytes": ...}. FOLDER
holds `base` (Hugging Face's layout, bfloat16), `hat` (PEFT's files) and `tokens.pt`, a row a job.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

OURS, PEER = "ours", "transformers+peft+bitsandbytes"

Job = Callable[[Tensor], Any]  # one row of tokens.pt -> what is written down of it, as JSON


def serve(providers: Mapping[str, Callable[[Path], Job]]) -> None:
    """Answers every line of the standard input, as the provider that the command line names."""
    from lowrank.train.plan.flops import peak_bytes

    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    job, rows = providers[name](folder), iter(torch.load(folder / "tokens.pt", weights_only=True))
    for line in sys.stdin:
        seconds, results = [], []
        for _ in range(json.loads(line)["count"]):
            tokens = next(rows)
            started = time.perf_counter()
            results.append(job(tokens))
            seconds.append(time.perf_counter() - started)
        answer = {"seconds": seconds, "results": results, "peak_bytes": peak_bytes(torch.device("cpu"))}
        print(json.dumps(answer), flush=True)


def quantized_by_bitsandbytes(folder: Path) -> Any:
    """transformers' model of `base`, in NF4 with double quantization, computing in bfloat16."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    configure: Any = BitsAndBytesConfig
    quantization = configure(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return AutoModelForCausalLM.from_pretrained(
        folder / "base", quantization_config=quantization, dtype=torch.bfloat16, device_map="cpu"
    )
