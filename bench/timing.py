"""Timing several providers of one op in turn, and what is said of the figures.

A *rotation* is the same call over several copies of its weight, so that no call finds its weight in a cache. A
*stopwatch* runs the next call or calls of a rotation and returns a reading, which is asked for the milliseconds of one
call once everything has been started: work on a GPU goes on while the next is being queued.
"""

import gc
import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import median

import numpy
import torch

COLD_BYTES = 150e6  # at least this much weight passes by before a copy is used again
GRAPH_MS = 1.0  # a graph takes at least this long: what its launch adds is then under one percent
LONG_MS = 0.5  # a call that takes longer hides its own launch behind the call before it: no graph is needed
LAUNCH_MS, SHORT_MS = (
    0.1,
    0.01,
)  # a call that seems to take less than the first may be all launch: it is taken for short

Call = Callable[[], object]
Reading = Callable[[], float]
Stopwatch = Callable[[], Reading]


@dataclass(frozen=True)
class Summary:
    """The repetitions of one provider: `ms_spread` is the distance between the quartiles."""

    ms: float
    ms_min: float
    ms_spread: float
    repetitions: int


@dataclass(frozen=True)
class Ratio:
    """The peer's time over ours, with a 95 % interval: above 1 ours is faster."""

    ratio: float
    low: float
    high: float


def summarize(samples: Sequence[float]) -> Summary:
    """Median, minimum and quartile distance of milliseconds."""
    lower, upper = numpy.quantile(samples, (0.25, 0.75))
    return Summary(median(samples), min(samples), float(upper - lower), len(samples))


def paired_ratio(ours: Sequence[float], theirs: Sequence[float], resamples: int = 2000) -> Ratio:
    """median_i(theirs[i] / ours[i]), the two samples of one repetition being neighbours in time

    The interval is that of the percentile bootstrap over repetitions (Efron and Tibshirani 1993, chapter 13), drawn
    with a fixed seed.
    """
    ratios = numpy.asarray(theirs) / numpy.asarray(ours)
    drawn = numpy.random.default_rng(0).choice(ratios, (resamples, len(ratios)))
    low, high = numpy.quantile(numpy.median(drawn, axis=1), (0.025, 0.975))
    return Ratio(float(numpy.median(ratios)), float(low), float(high))


def rotations(bytes_a_copy: int, cache_bytes: int, most: int | None = None) -> int:
    """The number of copies of a weight to rotate through: 150 MB, or twice the last-level cache if that is more.

    most    the number of calls, where that is known: further copies would never be used
    """
    needed = max(1, math.ceil(max(COLD_BYTES, 2 * cache_bytes) / bytes_a_copy))
    return needed if most is None else min(needed, most)


def interleave(stopwatches: Mapping[str, Stopwatch], repetitions: int) -> dict[str, list[float]]:
    """The milliseconds of every repetition, by provider. In each repetition all are run, beginning with another one.

    The garbage collector rests meanwhile.
    """
    names = list(stopwatches)
    readings: dict[str, list[Reading]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for repetition in range(repetitions):
            first = repetition % len(names)
            for name in names[first:] + names[:first]:
                readings[name].append(stopwatches[name]())
    finally:
        gc.enable()
    return {name: [read() for read in readings[name]] for name in names}


class Rotation:
    """Calls in a circle. The results of one round are kept during the next, so that outputs are fresh memory too."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._next = cycle(calls)
        self._kept: deque[object] = deque(maxlen=len(calls))
        self.length = len(calls)

    def step(self) -> None:
        """Runs the next call."""
        self._kept.append(next(self._next)())


def wall_stopwatch(rotation: Rotation, clock: Callable[[], float] = time.perf_counter) -> Stopwatch:
    """One call a reading, by the clock on the wall (in seconds): for a CPU."""

    def read() -> Reading:
        start = clock()
        rotation.step()
        ms = 1e3 * (clock() - start)
        return lambda: ms

    return read


def event_stopwatch(rotation: Rotation, calls: int = 1) -> Stopwatch:
    """Some calls a reading, between two CUDA events."""

    def run() -> None:
        for _ in range(calls):
            rotation.step()

    return _between_events(run, calls)


def graph_stopwatch(rotation: Rotation, ms_a_call: float) -> Stopwatch:
    """A CUDA graph of whole rounds of the rotation, `GRAPH_MS` long at least: for calls shorter than their launch.

    The current stream must not be the default one.  Raises RuntimeError for a call that cannot be captured.
    """
    calls = graph_calls(rotation.length, ms_a_call)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        for _ in range(calls):
            rotation.step()

    def replay(alive: Rotation = rotation) -> None:
        graph.replay()  # what was captured reads the operands of `alive`, and owns none of them

    replay()  # the first one uploads the graph
    return _between_events(replay, calls)


def graph_calls(length: int, ms_a_call: float) -> int:
    """Whole rounds of a rotation: with less than one, the caches would stay warm from replay to replay."""
    return length * max(1, math.ceil(GRAPH_MS / (length * max(ms_a_call, 1e-3))))


def cuda_stopwatch(rotation: Rotation, capture: bool) -> tuple[Stopwatch, str]:
    """The stopwatch that suits the length of a call, and its name: "graph" or "events".

    capture     whether to capture a short call; if not, it is timed with its launch, as is one that waits for the GPU
    """
    for _ in range(3):
        rotation.step()
    ms = event_stopwatch(rotation, calls=5)()()
    if capture and ms < LONG_MS and not _is_waiting(rotation):
        return graph_stopwatch(rotation, ms if ms > LAUNCH_MS else SHORT_MS), "graph"
    return event_stopwatch(rotation), "events"


def _is_waiting(rotation: Rotation) -> bool:
    """True if a call waits for the GPU, so that it cannot be captured. Tested first: a failed capture is costly."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that this mode does not see everything; the capture will
        torch.cuda.set_sync_debug_mode("error")
    try:
        rotation.step()
    except RuntimeError:
        return True
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return False


def _between_events(run: Callable[[], None], calls: int) -> Stopwatch:
    def read() -> Reading:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()

        def ms() -> float:
            end.synchronize()
            return float(start.elapsed_time(end)) / calls

        return ms

    return read
