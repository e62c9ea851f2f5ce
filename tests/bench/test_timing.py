"""The harness on made-up clocks: nothing here measures a time."""

import gc
from itertools import count

import pytest
import torch

from lowrank.bench import timing as harness
from lowrank.bench.timing import Rotation, graph_calls, interleave, paired_ratio, rotations, summarize, wall_stopwatch


def test_a_summary_is_median_minimum_and_the_distance_between_the_quartiles() -> None:
    found = summarize([5.0, 1.0, 2.0, 3.0, 4.0])
    assert (found.ms, found.ms_min, found.ms_spread, found.repetitions) == (3.0, 1.0, 2.0, 5)


def test_a_ratio_is_taken_between_neighbours_so_that_a_drift_of_both_cancels() -> None:
    ours = [1.0 + 0.1 * i for i in range(50)]
    found = paired_ratio(ours, [1.25 * ms for ms in ours])
    assert found.ratio == pytest.approx(1.25) and found.low == pytest.approx(1.25) and found.high == pytest.approx(1.25)


def test_the_interval_holds_the_ratio_narrows_with_repetitions_and_is_the_same_every_time() -> None:
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0)).mul(0.1).exp().tolist()
    few, many = paired_ratio([1.0] * 25, noise[:25]), paired_ratio([1.0] * 400, noise)
    assert few.low <= few.ratio <= few.high and many.low < 1.0 < many.high
    assert many.high - many.low < (few.high - few.low) / 2
    assert paired_ratio([1.0] * 25, noise[:25]) == few


@pytest.mark.slow
def test_every_provider_runs_once_a_repetition_and_each_begins_in_turn() -> None:
    order = []

    def stopwatch(name):
        return lambda: order.append(name) or (lambda: 1.0)

    samples = interleave({name: stopwatch(name) for name in "abc"}, 3)
    assert "".join(order) == "abcbcacab"
    assert samples == {name: [1.0] * 3 for name in "abc"}


@pytest.mark.slow
def test_readings_are_asked_for_when_everything_has_been_started() -> None:
    started = []

    def stopwatch():
        started.append(None)
        return lambda: float(len(started))

    assert interleave({"a": stopwatch}, 4) == {"a": [4.0] * 4}


@pytest.mark.slow
def test_the_garbage_collector_rests_and_comes_back_after_an_error() -> None:
    def stopwatch():
        assert not gc.isenabled()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        interleave({"a": stopwatch}, 1)
    assert gc.isenabled()


def test_the_clock_on_the_wall_is_read_before_and_after_a_call() -> None:
    seconds = count(step=0.25)
    calls = []
    read = wall_stopwatch(Rotation([lambda: calls.append(1)]), clock=lambda: next(seconds))
    assert [read()(), read()()] == [250.0, 250.0] and len(calls) == 2


def test_a_rotation_walks_in_a_circle_and_keeps_the_results_of_one_round() -> None:
    walked, alive = [], set()

    class Result:
        def __init__(self, index):
            self.index = index
            walked.append(index)
            alive.add(self)

        def __del__(self):
            walked.append(-self.index)

    rotation = Rotation([lambda index=index: Result(index) for index in (1, 2, 3)])
    for _ in range(4):
        rotation.step()
        alive.clear()
    assert walked == [1, 2, 3, 1, -1]  # the first result goes when the fourth has come, and no sooner


def test_rotations_pass_by_150_MB_or_twice_the_cache_and_no_more_than_the_calls() -> None:
    assert rotations(8_650_752, cache_bytes=60 << 20) == 18
    assert rotations(8_650_752, cache_bytes=260 << 20) == 64
    assert rotations(8_650_752, cache_bytes=260 << 20, most=53) == 53
    assert rotations(10**9, cache_bytes=0) == 1


def test_a_graph_is_whole_rounds_and_a_millisecond_long() -> None:
    for length, ms in [(18, 0.005), (5, 0.02), (3, 0.4), (1, 0.0), (7, 2.0)]:
        calls = graph_calls(length, ms)
        assert calls % length == 0 and calls >= length
        assert calls * max(ms, 1e-3) >= 1 or ms == 0.0
    assert graph_calls(18, 0.005) == 216


class MadeUpGpu:
    """Events on a clock that every call moves on, and graphs that replay how many calls they captured."""

    def __init__(self, ms, waits=False):
        self.now, self.ms, self.waits = 0.0, ms, waits
        self.mode, self.capturing = 0, None

    def call(self):
        if self.waits and self.mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")
        if self.capturing is None:
            self.now += self.ms
        else:
            self.capturing.calls += 1

    def install(self, monkeypatch: pytest.MonkeyPatch):
        gpu = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = gpu.now

            def synchronize(self):
                pass

            def elapsed_time(self, end):
                return end.at - self.at

        class Graph:
            calls = 0

            def replay(self):
                gpu.now += self.calls * gpu.ms

        class Capture:
            def __init__(self, graph, stream):
                self.graph = graph

            def __enter__(self):
                gpu.capturing = self.graph

            def __exit__(self, *_):
                gpu.capturing = None

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "graph", Capture)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
        monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: gpu.mode)
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: setattr(gpu, "mode", mode))
        return self


@pytest.mark.parametrize(
    ("ms", "capture", "waits", "expected"),
    [
        pytest.param(0.01, True, False, "graph", id="short"),
        pytest.param(0.3, True, False, "graph", id="rather-short"),
        pytest.param(2.0, True, False, "events", id="long"),
        pytest.param(0.01, False, False, "events", id="short-not-to-be-captured"),
        pytest.param(0.01, True, True, "events", id="short-that-waits"),
    ],
)
def test_a_short_call_is_captured_and_either_way_the_time_is_that_of_one_call(
    ms, capture, waits, expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = MadeUpGpu(ms, waits).install(monkeypatch)
    stopwatch, timing = harness.cuda_stopwatch(Rotation([gpu.call] * 18), capture)
    assert timing == expected
    assert stopwatch()() == pytest.approx(ms)
    assert gpu.mode == 0
