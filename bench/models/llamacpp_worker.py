"""Our side of the bench beside llama.cpp, which answers as tests/llamacpp/runner.cpp does.

    python -m lowrank.bench.models.llamacpp_worker FOLDER THREADS [HAT]

A line "NEW ID ID ..." of the standard input is a prompt and how many tokens are written behind it; the answer is a line
of JSON: seconds of the prompt and of the tokens, the tokens, and the peak of resident bytes. Computes in bfloat16.
"""

import json
import sys
import time
from itertools import islice
from pathlib import Path

import torch

from lowrank.adapters import use_adapter
from lowrank.adapters.files import load_adapter
from lowrank.checkpoints.load import load
from lowrank.kernels.cpu import library
from lowrank.model.generate import generate_tokens, unchanged

from .resident import peak_resident_bytes


def main(folder: Path, threads: int, hat: Path | None) -> None:
    """Answers every line of the standard input."""
    torch.set_num_threads(threads)
    model = load(folder, dtype=torch.bfloat16)
    if hat is not None:
        load_adapter(model, "bench", hat)
        use_adapter(model, "bench")
    print(json.dumps({"system": library.unavailable_reason() or library.instruction_set()}), flush=True)
    for line in sys.stdin:
        new, *prompt = map(int, line.split())
        with unchanged(model):  # as `lowrank generate` writes
            begun = time.perf_counter()
            steps = generate_tokens(model, [prompt], max_new_tokens=1 + new)
            first = next(steps)
            read = time.perf_counter()
            written = [first, *islice(steps, new)][:new]
            ended = time.perf_counter()
        figures = {"prompt_s": read - begun, "tokens_s": ended - read, "peak_bytes": peak_resident_bytes()}
        print(json.dumps({**figures, "tokens": [token for (token,) in written]}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if sys.argv[3:] else None)
