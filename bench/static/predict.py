"""The time that a GPU should take for a token and a training step of Llama 2 7B, from counts: nothing is measured.

    lowrank bench --predict h200

The launches of each step are counted on meta tensors (`launches`), each with the bytes of its tensors and the
multiply-adds of its product. A step is a range: every launch costs between the two costs of its kind, moves its bytes
at between two shares of the memory's rate, and multiplies at between two shares of the matrix units'. Captured as a
graph a launch costs the device the gap to the next; otherwise it costs the host, and a step takes what takes longer.
The waste of a kernel is what it takes beyond its bytes or multiply-adds at the full rate, in the middle of the range.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from lowrank.kernels.llama_ops.linear_cross_entropy import linear_cross_entropy
from lowrank.model.config import PRESETS, ModelConfig
from lowrank.text_table import table
from lowrank.train.optim import AdamW, clip_gradients

from .cost import read
from .launches import Launch, recorded
from .meta_llama import META, decode_launches, meta_model

RANK, WINDOW, BATCH = 8, 1024, (2, 2048)
# With a row for one token in the static table.
STEP = ("qkv", "gate_up", "residual")
WEIGHT_KERNELS = ("decode_pairs", "decode_linear", *STEP, *(f"{name}_pairs" for name in STEP))


@dataclass(frozen=True)
class Range:
    """Between the best and the worst that is expected."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class Gpu:
    """Rates of a device, and the costs of a launch.

    bytes_a_us, flops_a_us  that a copy and a large product reach
    gap                     microseconds between two kernels of a graph that depend on one another
    call                    microseconds of the host for a launch through torch and Python
    share                   of bytes_a_us that a kernel reaches; of a product from 4 bits at most what its instructions
                            allow (`bench.static.cost`)
    product                 the share of flops_a_us that a product of the vendor reaches
    """

    name: str
    bytes_a_us: float
    flops_a_us: float
    gap: Range
    call: Range
    share: Range
    product: Range


GPUS = {"h200": Gpu("NVIDIA H200", 4.3e6, 790e6, Range(0.8, 2.0), Range(4.0, 9.0), Range(0.45, 0.9), Range(0.6, 0.9))}


@dataclass(frozen=True)
class Line:
    """All launches of one kernel: microseconds on the device without gaps, the least of it, bytes."""

    kernel: str
    launches: int
    bytes: int
    least: float
    busy: Range


@dataclass(frozen=True)
class Prediction:
    """A step: its launches by kernel, its milliseconds, the least that bytes and multiply-adds allow, the wastes."""

    what: str
    lines: tuple[Line, ...]
    ms: Range
    least_ms: float
    wastes: tuple[tuple[str, float], ...]

    @property
    def launches(self) -> int:
        return sum(line.launches for line in self.lines)


def predict(what: str, launches: Iterable[Launch], gpu: Gpu, is_graph: bool) -> Prediction:
    """The time of the launches one after another."""
    grouped: dict[str, list[Launch]] = defaultdict(list)
    for launch in launches:
        grouped[launch.name].append(launch)
    limits = _instruction_shares(gpu)
    lines = tuple(
        sorted(
            (_line(kernel, of_it, gpu, limits) for kernel, of_it in grouped.items()), key=lambda line: -line.busy.high
        )
    )
    count = sum(line.launches for line in lines)
    busy = Range(sum(line.busy.low for line in lines), sum(line.busy.high for line in lines))
    gaps = Range(count * gpu.gap.low, count * gpu.gap.high)
    wastes = {f"{line.kernel} below the full rate": line.busy.middle - line.least for line in lines}
    ms = Range((busy.low + gaps.low) / 1e3, (busy.high + gaps.high) / 1e3)
    if is_graph:
        wastes[f"gaps between {count} kernels"] = gaps.middle
    else:
        host = Range(count * gpu.call.low / 1e3, count * gpu.call.high / 1e3)
        wastes[f"the host, which starts {count} kernels"] = max(0.0, 1e3 * host.middle - busy.middle)
        ms = Range(max(ms.low, host.low), max(ms.high, host.high))
    least = sum(line.least for line in lines) / 1e3
    return Prediction(what, lines, ms, least, tuple(sorted(wastes.items(), key=lambda waste: -waste[1])))


def _line(kernel: str, launches: list[Launch], gpu: Gpu, limits: Mapping[str, float]) -> Line:
    share = min(gpu.share.high, limits.get(kernel.removesuffix("_kernel"), 1.0))
    least, low, high = 0.0, 0.0, 0.0
    for launch in launches:
        by_bytes, by_flops = launch.bytes / gpu.bytes_a_us, launch.flops / gpu.flops_a_us
        least += max(by_bytes, by_flops)
        low += max(by_bytes / share, by_flops / gpu.product.high)
        high += max(by_bytes / gpu.share.low, by_flops / gpu.product.low)
    return Line(kernel, len(launches), sum(launch.bytes for launch in launches), least, Range(low, high))


def _instruction_shares(gpu: Gpu) -> dict[str, float]:
    """The share of the memory's rate at which a kernel for one token issues its instructions, by the static table."""
    shares = {}
    for row in read()[1]:
        name, _, what = row.kernel.partition(" ")
        is_ours = name in WEIGHT_KERNELS and what in ("M1 bf16 nf4-dq", "M8 bf16 nf4-dq") and row.target == "sm_90"
        if is_ours and row.microseconds is not None:
            memory = 11008 * 4096 * (4 + 8 / 64 + 32 / (64 * 256)) / 8 / gpu.bytes_a_us
            shares[name] = memory / row.microseconds
    return shares


def training_launches(
    config: ModelConfig, rank: int, batch: tuple[int, int], recomputes_blocks: bool = False
) -> tuple[list[Launch], list[Launch]]:
    """Those of forward and backward, and of clipping and update, in a hat on every linear, after a first step

    recomputes_blocks: `run.recompute = "full"`. In the first step tables are made that stay.
    """
    model = meta_model(config, rank, trainable=True).train()
    model.gradient_checkpointing = recomputes_blocks
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = AdamW(parameters)
    tokens = torch.zeros(batch, dtype=torch.int64, device=META)
    for _ in range(2):
        with recorded() as launches:
            hidden = model.hidden(tokens)
            loss = linear_cross_entropy(hidden.flatten(0, 1), model.output.weight, tokens.flatten())
            loss.backward()
            before = len(launches)
            clip_gradients(parameters.values(), 1.0)
            optimizer.step(1e-4)
    return launches[:before], launches[before:]


def predictions(gpu: Gpu, config: ModelConfig = PRESETS["7b"]) -> list[Prediction]:
    """A token bare and in a hat, and a training step."""
    passes, update = training_launches(config, RANK, BATCH)
    batch = f"{BATCH[0]} x {BATCH[1]} tokens"
    return [
        predict(f"a token, window {WINDOW}", decode_launches(meta_model(config), WINDOW), gpu, True),
        predict(f"a token in a hat of rank {RANK}", decode_launches(meta_model(config, RANK), WINDOW), gpu, True),
        predict(f"forward and backward of {batch}", passes, gpu, False),
        predict("clipping and update", update, gpu, False),
    ]


def show(gpu: Gpu, config: ModelConfig = PRESETS["7b"]) -> str:
    """The predictions for a reader: the range of each step, its kernels, and the largest wastes."""
    said = [f"{gpu.name}, Llama 2 7B in nf4-dq, predicted from counts: nothing here was measured"]
    for step in predictions(gpu, config):
        said += ["", f"{step.what}: {step.ms.low:.2f} to {step.ms.high:.2f} ms, at least {step.least_ms:.2f}"]
        if step.what.startswith("a token"):
            said[-1] += f"; {1e3 / step.ms.high:.0f} to {1e3 / step.ms.low:.0f} tokens a second"
        header = ("kernel", "launches", "MB", "least us", "us")
        cells = [
            (line.kernel, str(line.launches), f"{line.bytes / 1e6:.1f}", f"{line.least:.1f}", _span(line.busy))
            for line in step.lines[:6]
        ]
        said.append(table(cells, header))
        said += [f"waste: {name}, about {us / 1e3:.2f} ms" for name, us in step.wastes[:3]]
    return "\n".join(said)


def _span(span: Range) -> str:
    return f"{span.low:.1f} to {span.high:.1f}"
