"""Texts with drafts and without, in turns: byte for byte the same, and how much faster.

    python -m lowrank.bench.models.drafts --hat runs/quickstart/hat --documents 200
    python -m lowrank.bench.models.drafts --hat runs/quickstart/hat --base nf4-dq --costs
    python -m lowrank.bench.models.drafts --model BASE --base nf4-dq --dtype bf16 --beside BASE-Q4_0.gguf

Documents of the test split, free and grounded, each written plain, with drafts from its own text, and with drafts from
the documents before it, too. With `--random` prompts are random tokens and the base writes them on, drawn at a
temperature at which nothing repeats itself: what drafts cost where there is nothing to draft. `--costs` prints the row
of `lowrank/layers/pass_costs.json` for this machine. `--beside` has llama.cpp, where it is built, write as many tokens
behind the same prompts, plainly and greedily, in its turn: the prompt is in the time of both.

Both clocks are read: seconds by the wall, and of this process on its processors, which other work disturbs less.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

import lowrank
from lowrank.checkpoints.load import load_tokenizer
from lowrank.data.documents.document import make_documents
from lowrank.data.encoding.batching import prompt_for
from lowrank.grounding.decoding import Grounding
from lowrank.grounding.names import phrases_of
from lowrank.grounding.vocabulary import Vocabulary
from lowrank.kernels.cpu import library
from lowrank.kernels.cpu.decode_step import SAME_BITS_UP_TO
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES
from lowrank.layers.pass_costs import asked_for
from lowrank.model.completion import Completion
from lowrank.model.drafts import Lookup
from lowrank.model.generate import complete, generate_tokens
from lowrank.model.llama import KVCache, Llama
from lowrank.model.sampling import SamplingOptions

from .. import machine
from .llamacpp import Answering, serving

NAMES = ("plain", "own text", "texts before")
SEED, MOST, WARM = 7, 400, 2
RANDOM_PROMPT, RANDOM_NEW, RANDOM_TEMPERATURE = 64, 200, 2.0
CONTEXT, REPEATS = 200, 40


class Clock:
    """Seconds by the wall and of this process, a text at a time."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def measure(self, write: Callable[[], Any]) -> Any:
        """The value of `write`, its seconds kept."""
        wall, cpu = time.perf_counter(), time.process_time()
        written = write()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        return written


def compare(
    count: int,
    write: Callable[[int, bool | Lookup], Completion | list[int]],
    tell: Callable[[str], None],
    beside: Callable[[int, int], float] | None = None,
) -> tuple[dict[str, Any], int]:
    """(figures, texts that differ): every text by the three ways, which take turns in being the first.

    beside  the seconds of the peer for a text, of so many tokens
    """
    peer: list[float] = []
    clocks, lookup, different, tokens = [Clock() for _ in NAMES], Lookup(), 0, []
    for number in range(count):
        ways: list[bool | Lookup] = [False, True, lookup]
        texts: dict[int, Any] = {}
        for turn in range(len(NAMES)):
            way = (turn + number) % len(NAMES)
            texts[way] = clocks[way].measure(partial(write, number, ways[way]))
        if not texts[0] == texts[1] == texts[2]:
            different += 1
            tell(f"text {number} differs")
        tokens.append(len(texts[0].tokens if isinstance(texts[0], Completion) else texts[0]))
        if beside is not None:
            peer.append(beside(number, tokens[-1]))
    total = sum(tokens[WARM:])
    figures: dict[str, Any] = {"texts": count, "different": different, "tokens": sum(tokens)}
    for name, clock in zip(NAMES, clocks, strict=True):
        figures[name] = {
            "tokens_a_second": total / sum(clock.wall[WARM:]),
            "cpu_ms_a_token": 1e3 * sum(clock.cpu[WARM:]) / total,
        }
        figures[name]["times_as_fast"] = median(ratios(clocks[0].wall, clock.wall))
        figures[name]["times_as_fast_by_cpu"] = median(ratios(clocks[0].cpu, clock.cpu))
        if peer:
            figures[name]["times_as_fast_as_llama.cpp"] = median(ratios(peer, clock.wall))
    if peer:
        figures["llama.cpp"] = {"tokens_a_second": total / sum(peer[WARM:])}
    return figures, different


def ratios(plain: Sequence[float], drafted: Sequence[float]) -> list[float]:
    """The speed of each text over that of the plain one, without the first ones."""
    return [a / b for a, b in zip(plain[WARM:], drafted[WARM:], strict=True)]


@torch.inference_mode()
def measure_costs(model: Llama) -> dict[str, Any]:
    """The row of `pass_costs.json`: the lower quartiles of passes over 1, 2, .. tokens, over that of one."""
    assert model.fused_blocks is not None
    cache = KVCache(model.config, 1, 512, model.tok_embeddings.weight.dtype, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, model.config.vocab_size, (1, CONTEXT), generator=generator)
    model.hidden(tokens, cache)
    taken: list[list[float]] = [[] for _ in range(SAME_BITS_UP_TO)]
    with model.fused_blocks.unchanged():
        for _ in range(REPEATS):
            for count, seconds in enumerate(taken, start=1):
                cache.length, begun = CONTEXT, time.process_time()
                over = model.fused_blocks.logits_of_each(model, tokens[:, :count], cache)
                seconds.append(time.process_time() - begun)
                assert over is not None
    costs = [sorted(seconds)[REPEATS // 4] for seconds in taken]
    instruction_set, dtype, storage, size = asked_for(model)
    known = f"measured on {machine.name(torch.device('cpu'))}, {torch.get_num_threads()} threads"
    row = {"instruction_set": instruction_set, "dtype": dtype, "storage": storage, "size": size}
    return {
        **row,
        "costs": [round(cost / costs[0], 2) for cost in costs],
        "known": known,
        "ms": round(1e3 * costs[0], 3),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if a text differs."""
    parser = argparse.ArgumentParser(
        "python -m lowrank.bench.models.drafts", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--model", default="embedded", help="a base that is there")
    parser.add_argument("--base", default="fp32", help="how its linears are stored")
    parser.add_argument("--dtype", default="fp32", choices=tuple(DENSE_DTYPES))
    parser.add_argument("--hat", type=Path)
    parser.add_argument("--template", default="alpaca")
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--seed", type=int, default=SEED, help="of the documents, or of the random tokens")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--free", action="store_true", help="not the grounded ones")
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--costs", action="store_true")
    parser.add_argument("--beside", type=Path, metavar="GGUF", help="the same base for llama.cpp")
    parser.add_argument("--beside-hat", type=Path, metavar="GGUF", help="the same hat for llama.cpp")
    args = parser.parse_args(arguments)
    model, tokenizer = lowrank.load(args.model, args.base, dtype=DENSE_DTYPES[args.dtype]), load_tokenizer(args.model)
    if args.hat is not None:
        lowrank.load_adapter(model, "hat", args.hat)
        lowrank.use_adapter(model, "hat")
    if args.costs:
        print(json.dumps(measure_costs(model)))
        return 0
    about = {"model": args.model, "base": args.base, "dtype": args.dtype, "hat": args.hat is not None}
    about |= {"seed": args.seed, "instruction_set": library.instruction_set(), "threads": torch.get_num_threads()}
    about |= {"machine": machine.name(torch.device("cpu")), "versions": machine.versions(["torch"])}
    about |= {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": machine.commit()}
    wrong = 0

    def show(
        what: str,
        temperature: float,
        write: Callable[[int, bool | Lookup], Completion | list[int]],
        beside: Callable[[int, int], float] | None = None,
    ) -> None:
        nonlocal wrong
        tell = partial(print, f"{what}:", file=sys.stderr)
        figures, different = compare(args.documents, write, tell, beside)
        wrong += different
        row = {"bench": "drafts", "kind": what, "temperature": temperature, **about, **figures}
        print(json.dumps(row), flush=True)

    if args.random:
        shape = args.documents, RANDOM_PROMPT
        prompts = torch.randint(
            3, model.config.vocab_size, shape, generator=torch.Generator().manual_seed(args.seed)
        ).tolist()

        def drawn(number: int, drafts: bool | Lookup) -> list[int]:
            options: SamplingOptions = {"temperature": RANDOM_TEMPERATURE, "seed": number}
            steps = generate_tokens(model, [prompts[number]], max_new_tokens=RANDOM_NEW, drafts=drafts, **options)
            return [token for (token,) in steps if token is not None]

        show("random", RANDOM_TEMPERATURE, drawn)
        return 1 if wrong else 0
    vocabulary, entries = Vocabulary(tokenizer), make_documents(args.documents, seed=args.seed, split="test")

    def document(number: int, drafts: bool | Lookup, grounded: bool) -> Completion:
        entry = entries[number]
        prompt, answer = prompt_for(args.template, tokenizer, entry.instruction, entry.input)
        constraint = Grounding(entry.facts, vocabulary, phrases_of(entry.kind)) if grounded else None
        options: SamplingOptions = {"temperature": args.temperature, "seed": number}
        rows = complete(
            model,
            tokenizer,
            [prompt],
            max_new_tokens=MOST,
            constraints=[constraint],
            answer=answer,
            drafts=drafts,
            **options,
        )
        return rows[0]

    def plainly(peer: Answering, number: int, tokens: int) -> float:
        prompt, _ = prompt_for(args.template, tokenizer, entries[number].instruction, entries[number].input)
        ids = tokenizer.encode(prompt, bos=True) if isinstance(prompt, str) else prompt
        answer = peer.ask(ids, tokens)
        return float(answer["prompt_s"] + answer["tokens_s"])

    with ExitStack() as stack:
        beside = None
        if args.beside is not None:
            hats = [] if args.beside_hat is None else [args.beside_hat]
            peer = stack.enter_context(serving(args.beside, torch.get_num_threads(), model.config.max_seq_len, *hats))
            beside = partial(plainly, peer)
        for grounded in (False,) if args.free else (False, True):
            show("grounded" if grounded else "free", args.temperature, partial(document, grounded=grounded), beside)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
