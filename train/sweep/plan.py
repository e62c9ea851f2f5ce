"""Memory of a sweep, before the work: one base, all hats, and the largest batches that are computed together."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lowrank.adapters.accounting import Item
from lowrank.data.encoding.batching import Example
from lowrank.data.encoding.packing import Row
from lowrank.model.config import ModelConfig

from ..batch_schedule import BatchSchedule
from ..plan.memory import BatchShape, activations, compute_dtype, parts, working_memory
from .axes import Point

ADAPTERS = ("hat, fp32", "its gradient, fp32", "optimizer")


@dataclass(frozen=True)
class SweepPlan:
    """Bytes at the peak, part by part, and the positions of the largest pass."""

    parts: Sequence[Item]
    parameters: int
    positions: int

    @property
    def peak_bytes(self) -> int:
        """The sum of the parts."""
        return sum(part.bytes for part in self.parts)


def make_plan(
    model: ModelConfig, points: Sequence[Point], examples: Sequence[Example], at_once: int, runtime: int
) -> SweepPlan:
    """The plan of a sweep whose passes take `at_once` positions, or one hat's batch; runtime: bytes in use already."""
    one = BatchShape(1, 1, 1)
    of_points = [parts(model, point.config, one) for point in points]
    shared = [item for item in of_points[0] if not item.what.startswith((*ADAPTERS, "activations", "working"))]
    adapters = [item for items in of_points for item in items if item.what.startswith(ADAPTERS)]
    trained = [item for item in adapters if item.parameters]
    kept = working = positions = 0
    for group in groups_of_run(points, examples, at_once):
        shapes = [
            (point, BatchShape(len(batch), max(map(len, batch)), sum(row.supervised for row in batch)))
            for point, batch in group
        ]
        joined = BatchShape(1, sum(shape.tokens for _, shape in shapes), sum(shape.supervised for _, shape in shapes))
        attended = (
            (len(group) > 1) * joined.tokens * model.n_layers * model.dim * compute_dtype(points[0].config).itemsize
        )
        kept = max(kept, attended + sum(activations(model, point.config, shape) for point, shape in shapes))
        working = max(working, working_memory(model, points[0].config, joined))
        positions = max(positions, joined.tokens)
    items = [
        Item("Python and torch", 0, runtime),
        *shared,
        Item(
            f"{len(points)} hats, fp32", sum(item.parameters for item in trained), sum(item.bytes for item in trained)
        ),
        Item("their gradients and optimizers", 0, sum(item.bytes for item in adapters if not item.parameters)),
        Item("activations", 0, kept),
        Item("working memory", 0, working),
    ]
    return SweepPlan(items, sum(item.parameters for item in trained), positions)


def groups_of_run(
    points: Sequence[Point], examples: Sequence[Example], at_once: int
) -> Iterator[list[tuple[Point, list[Row]]]]:
    """The batches of every pass of a sweep that is not interrupted."""
    streams = {point.name: _batches(BatchSchedule.of(examples, point.config)) for point in points}
    while True:
        nexts = [(point, next(streams[point.name], None)) for point in points]
        pending = [(point, batch) for point, batch in nexts if batch is not None]
        if not pending:
            return
        for group in groups([positions_of(batch) for _, batch in pending], at_once):
            yield [pending[number] for number in group]


def groups(positions: Sequence[int], at_once: int) -> list[list[int]]:
    """The numbers of batches that are computed together, in their order: up to `at_once` positions, or one batch."""
    found: list[list[int]] = []
    room = 0
    for number, count in enumerate(positions):
        if count > room or not found:
            found.append([])
            room = at_once
        found[-1].append(number)
        room -= count
    return found


def positions_of(batch: Sequence[Row]) -> int:
    """Positions that a batch is computed for: rows times the longest."""
    return len(batch) * max(map(len, batch))


def available_bytes(device: torch.device) -> int | None:
    """Memory that is free: of the GPU, or of the system and the container; None where neither tells."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = []
    if match := re.search(r"^MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE):
        found.append(int(match[1]) << 10)
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit():
        found.append(int(limit) - int(used))
    return min(found, default=None)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""


def _batches(schedule: BatchSchedule) -> Iterator[list[Row]]:
    return (batch for _, batches in schedule.from_step(0) for batch in batches)
