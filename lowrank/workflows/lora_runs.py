"""The runs of `lowrank reproduce --lora`, one file each, and what is measured of them.

    OUT/settings.json    what decides a run: other settings need another folder, more seeds do not
    OUT/runs/NAME.json   a finished run; it is not made again

A fact is a word and digits drawn at random, which only memory predicts: a set of them holds ln 10 nats a digit, and
what a run has stored of it is counted in bits. Forgetting is the loss on texts of the kinds that the base was taught.
"""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn

from ..adapters import adapter_parameters, add_adapter, lora_layers, use_adapter
from ..adapters.algebra.factored import Factored
from ..atomic_io import write_json
from ..bench.rows import Row
from ..checkpoints.embedded import EMBEDDED, base_folder
from ..checkpoints.load import load, load_tokenizer
from ..data.encoding.batching import Example
from ..data.encoding.packing import rows_of_one
from ..eval.inspect.forgetting import taught_examples
from ..eval.inspect.intruders import find_intruders
from ..eval.metrics.perplexity import completion_loss
from ..model.config_json import read_json
from ..model.llama import Llama
from ..model.loss import IGNORED
from ..model.param_names import is_block_linear
from ..model.tokenizer import Tokenizer
from ..progress import ProgressBar
from ..train.optim import AdamW, clip_gradients, learning_rate
from ..train.resume.folder import locked
from ..train.step import batch_loss
from .lora_plan import LINEARS, MANY, Method, Plan, Run
from .real import keep_settings

SETTINGS, RUNS = "settings.json", "runs"
ADAPTER = "lora"
CLIP = 1.0
LOOKED_AT, THRESHOLD = 10, 0.5  # leading singular vectors of each linear, and the cosine below which one intrudes
SHORTEST_WORD = 3


def run_all(out: Path, plan: Plan, seeds: int, jobs: int, *, progress: bool = True) -> list[Row]:
    """The rows of every run of the plan, those that are not there yet trained by `jobs` processes of one thread each.

    Raises ValueError for a folder that was begun with other settings, or that another process has.
    """
    with locked(out):
        keep_settings(out / SETTINGS, plan.settings())
        runs = list(plan.runs(seeds))
        left = [run for run in runs if not (out / RUNS / f"{run.name}.json").exists()]
        with ProgressBar(total=len(runs), desc="reproduce --lora", unit="run", disable=not progress) as bar:
            bar.update(len(runs) - len(left))
            for _ in _finished(out, plan, left, jobs):
                bar.update()
        return [read_json(out / RUNS / f"{run.name}.json") for run in runs]


def _finished(out: Path, plan: Plan, runs: Sequence[Run], jobs: int) -> Iterator[None]:
    """Something for each run that has come to its end."""
    if jobs == 1 or len(runs) < 2:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for run in runs:
                _keep(out, plan, run)
                yield
        finally:
            torch.set_num_threads(threads)
        return
    # Spawned: a fork would share locks with the threads of torch.
    with ProcessPoolExecutor(
        min(jobs, len(runs)), mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        try:
            for future in as_completed([pool.submit(_keep, out, plan, run) for run in runs]):
                future.result()
                yield
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _keep(out: Path, plan: Plan, run: Run) -> None:
    write_json(out / RUNS / f"{run.name}.json", train_run(plan, run))


def train_run(plan: Plan, run: Run) -> Row:
    """Trains once, and measures. A run whose loss stops being finite ends there, and has no measurements.

    loss, loss_before  nats a digit of the facts, after and before;  bits: stored of them, (ln 10 - loss) digits / ln 2
    kept, kept_before  nats a token of texts that the base was taught
    intruders          of `looked_at` leading singular vectors (`eval.inspect.intruders`); of the part "many" alone
    curve              the loss of each step
    """
    started = time.process_time()
    part, method = run.part, run.method
    examples = facts(part.facts, plan.digits, run.seed)
    loss_before, kept_before = _before(part.facts, plan.digits, plan.kept, run.seed)
    model = load(EMBEDDED, "fp32")
    weights = _linears(model)
    parameters = _trained(model, method, run.seed)
    curve = _learn(model, parameters, examples, run)
    row: Row = {
        "part": part.name,
        "rank": method.rank,
        "targets": method.targets,
        "alpha": method.alpha,
        "rate": run.rate,
        "seed": run.seed,
        "parameters": sum(parameter.numel() for parameter in parameters.values()),
        "loss_before": round(loss_before, 5),
        "kept_before": round(kept_before, 5),
    }
    if len(curve) == part.steps:
        loss = completion_loss(model, examples)
        bits = (math.log(10) - loss) * part.facts * plan.digits / math.log(2)
        kept = completion_loss(model, _taught(plan.kept))
        if math.isfinite(loss) and math.isfinite(kept):
            row |= {"loss": round(loss, 5), "bits": round(bits, 1), "kept": round(kept, 5)}
            if part.name == MANY:
                row["intruders"] = count_intruders(weights, _updates(model, method, weights))
                row["looked_at"] = len(weights) * LOOKED_AT
    row["curve"] = [round(loss, 3) for loss in curve]
    return row | {"cpu_seconds": round(time.process_time() - started, 1)}


def _learn(model: Llama, parameters: dict[str, nn.Parameter], examples: Sequence[Example], run: Run) -> list[float]:
    """The loss of each step, nats a digit, up to the first that is not finite."""
    part, curve = run.part, []
    optimizer = AdamW(parameters)
    for step, batch in enumerate(batches(examples, part.batch, part.steps, run.seed)):
        nats, _ = batch_loss(model, rows_of_one(batch))
        loss = nats / sum(example.supervised for example in batch)
        if not math.isfinite(loss.item()):
            break
        curve.append(loss.item())
        loss.backward()
        clip_gradients(parameters.values(), CLIP)
        optimizer.step(learning_rate(step, part.steps, run.rate, 0, "linear"))
    return curve


def batches(examples: Sequence[Example], size: int, steps: int, seed: int) -> Iterator[list[Example]]:
    """Each example once an epoch, in an order that the seed decides."""
    order: list[Example] = []
    generator = Random(f"order|{seed}")
    for _ in range(steps):
        while len(order) < size:
            order += generator.sample(examples, len(examples))
        yield order[:size]
        order = order[size:]


def _trained(model: Llama, method: Method, seed: int) -> dict[str, nn.Parameter]:
    """The parameters that a method trains, by name."""
    if not method.rank:
        return dict(model.requires_grad_(True).named_parameters())
    add_adapter(model, ADAPTER, rank=method.rank, alpha=method.alpha, targets=LINEARS[method.targets], seed=seed)
    use_adapter(model, ADAPTER)
    return adapter_parameters(model, ADAPTER)


def _linears(model: Llama) -> dict[str, Tensor]:
    """A copy of the weight of each linear of the blocks."""
    named = model.named_parameters()
    return {name.removesuffix(".weight"): one.detach().clone() for name, one in named if is_block_linear(name)}


def _updates(model: Llama, method: Method, before: dict[str, Tensor]) -> dict[str, Tensor]:
    """The update of each linear that the method trains."""
    if not method.rank:
        return {path: weight - before[path] for path, weight in _linears(model).items()}
    layers = {path: layer for path, layer in lora_layers(model).items() if ADAPTER in layer.lora_A}
    return {path: layer.delta(ADAPTER).detach() for path, layer in layers.items()}


def count_intruders(weights: dict[str, Tensor], updates: dict[str, Tensor]) -> int:
    """Intruders among the `LOOKED_AT` leading singular vectors of each linear, over all of the model    (2410.21228)"""
    found = 0
    for path, delta in updates.items():
        whole = Factored(delta.double(), torch.ones(delta.shape[1]), torch.eye(delta.shape[1], dtype=torch.float64))
        found += find_intruders(weights[path], whole, LOOKED_AT, THRESHOLD, exact=True).found
    return found


@cache
def _tokenizer() -> Tokenizer:
    return load_tokenizer(base_folder(EMBEDDED))


@cache
def _taught(count: int) -> list[Example]:
    return taught_examples(_tokenizer(), count)


@cache
def _before(count: int, digits: int, kept: int, seed: int) -> tuple[float, float]:
    """The losses of the base, on facts and on what it was taught."""
    model = load(EMBEDDED, "fp32")
    return completion_loss(model, facts(count, digits, seed)), completion_loss(model, _taught(kept))


def words() -> list[str]:
    """Words that are one token of the embedded base."""
    pieces = (_tokenizer().piece(token) for token in range(_tokenizer().vocab_size))
    begun = [piece[1:] for piece in pieces if piece.startswith("▁")]
    return [word for word in begun if word.isalpha() and len(word) >= SHORTEST_WORD]


def facts(count: int, digits: int, seed: int) -> list[Example]:
    """Words, each with digits drawn at random, which alone are learned; fewer facts are the first of more."""
    generator = Random(f"facts|{seed}")
    examples = []
    for word in generator.sample(words(), len(words()))[:count]:
        value = "".join(generator.choice("0123456789") for _ in range(digits))
        tokens = _tokenizer().encode(f"{word} {value}", bos=True)
        labels = [IGNORED] * (len(tokens) - digits) + tokens[-digits:]
        examples.append(Example(word, tuple(tokens), tuple(labels)))
    return examples
