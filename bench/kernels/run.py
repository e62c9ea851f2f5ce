"""One run of the kernel bench: the limits, every check, then every case, a row for each provider."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from lowrank.kernels import ops
from lowrank.kernels.weights.quantized_weight import QuantizedWeight

from .. import machine
from ..rows import Row
from ..timing import (
    Call,
    Rotation,
    Stopwatch,
    cuda_stopwatch,
    interleave,
    paired_ratio,
    rotations,
    summarize,
    wall_stopwatch,
)
from .checks import Inputs, Verdict, check
from .limits import measure_limits
from .peers import FORMAT, INSTALLABLE, Provider
from .plan import INTO, Case, Limits, Work, work

REPETITIONS = 50
WARM_CALLS = 3
# What a peer may raise where it does not take a case, or where another version of it takes other arguments.
REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, ImportError)


@dataclass(frozen=True)
class Refusal:
    """A peer that cannot do a case, in its own words."""

    case: Case
    provider: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """One provider at one case, ready to be timed."""

    stopwatch: Stopwatch
    timing: str
    rotations: int
    work: Work


class KernelRun:
    """The constants of a run: device, dtype, providers, limits, versions."""

    def __init__(self, providers: Sequence[Provider], device: torch.device, dtype: torch.dtype) -> None:
        self.providers, self.device, self.dtype = list(providers), device, dtype
        self.threads = machine.pin() if device.type == "cpu" else None
        self.cache_bytes = machine.cache_bytes(device)
        meter = machine.LoadMeter() if device.type == "cpu" else None
        self.limits = measure_limits(device, dtype, self.cache_bytes)
        self._limits_load = meter.load() if meter else None
        self.machine = machine.name(device)
        self._left_out: set[tuple[str, Case]] = set()
        self.about = {
            "dtype": str(dtype).removeprefix("torch."),
            "format": FORMAT,
            "device": device.type,
            "machine": self.machine,
            "threads": self.threads,
            "limits": asdict(self.limits),
            "versions": machine.versions(["torch", "triton", *INSTALLABLE]),
            "commit": machine.commit(),
            "source": machine.source(),
        }

    def check(self, cases: Sequence[Case]) -> Iterator[Verdict | Refusal]:
        """Every provider at every case. A peer may refuse one, which is then not timed; ours may not."""
        for inputs, shaped in self._by_shape(cases):
            for provider in self.providers:
                stored = None
                for case in (case for case in shaped if case.op in provider.ops):
                    try:
                        stored = provider.hold(inputs.w) if stored is None else stored
                        # A copy, because bitsandbytes' layer repacks itself at its first call.
                        yield check(provider, copy.deepcopy(stored), case, inputs)
                    except REFUSALS as error:
                        if provider is self.providers[0]:
                            raise
                        self._left_out.add((provider.name, case))
                        yield Refusal(case, provider.name, " ".join(str(error).split())[:200])

    def measure(self, cases: Sequence[Case], repetitions: int = REPETITIONS) -> Iterator[list[Row]]:
        """The rows of a case, ours first, as they come."""
        stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        with torch.cuda.stream(stream) if stream else nullcontext():
            for inputs, shaped in self._by_shape(cases):
                for op in dict.fromkeys(case.op for case in shaped):
                    of_op = {case: self._able(case) for case in shaped if case.op == op}
                    by_name = {provider.name: provider for able in of_op.values() for provider in able}
                    stored = {
                        name: self._copies(provider, inputs, op, repetitions) for name, provider in by_name.items()
                    }
                    for case, able in ((case, able) for case, able in of_op.items() if able):
                        yield self._measure(case, able, stored, inputs, repetitions)

    def leave_out(self, provider: str, case: Case) -> None:
        """A provider is not timed at a case; without ours nobody is."""
        self._left_out.add((provider, case))

    def _able(self, case: Case) -> list[Provider]:
        """The providers of an op that did not refuse this case of it, nor are wrong in it; none without ours."""
        if (self.providers[0].name, case) in self._left_out:
            return []
        with_op = (provider for provider in self.providers if case.op in provider.ops)
        return [provider for provider in with_op if (provider.name, case) not in self._left_out]

    def _by_shape(self, cases: Sequence[Case]) -> Iterator[tuple[Inputs, list[Case]]]:
        for n, k in dict.fromkeys((case.n, case.k) for case in cases):
            yield Inputs(n, k, self.dtype, self.device), [case for case in cases if (case.n, case.k) == (n, k)]

    def _copies(self, provider: Provider, inputs: Inputs, op: str, repetitions: int) -> list[Any]:
        """The weights that are walked through: as they are before quantizing, else as the provider holds them."""
        first = inputs.w if op == "quantize" else provider.hold(inputs.w)
        if op == "forward":
            provider.linear(first, inputs.w[:1])  # what is repacked at a first call is repacked before it is copied
        size = inputs.w.numel() * inputs.w.element_size() if op == "quantize" else provider.stored_bytes(first)
        most = repetitions + WARM_CALLS if self.device.type == "cpu" else None
        return [first, *(self._copy(first) for _ in range(rotations(size, self.cache_bytes, most) - 1))]

    def _copy(self, stored: Any) -> Any:
        """Another one in memory of its own, laid out as a base is when it is loaded if it is a weight of ours."""
        other = copy.deepcopy(stored)
        return ops.to_fast_layout(other, self.dtype) if isinstance(other, QuantizedWeight) else other

    def _measure(
        self, case: Case, providers: list[Provider], stored: dict[str, list[Any]], inputs: Inputs, repetitions: int
    ) -> list[Row]:
        x = inputs.x(case) if case.m is not None else None
        with torch.set_grad_enabled(case.op == "dX"):
            entries = {provider.name: self._entry(provider, case, stored[provider.name], x) for provider in providers}
            meter = machine.LoadMeter() if self.device.type == "cpu" else None
            samples = interleave({name: entry.stopwatch for name, entry in entries.items()}, repetitions)
        return self._rows(case, entries, samples, meter.load() if meter else None)

    def _entry(self, provider: Provider, case: Case, copies: list[Any], x: Tensor | None) -> Entry:
        """A provider ready to be timed: everything is compiled, captured and warm."""
        stored = provider.stored_bytes(provider.hold(copies[0]) if case.op == "quantize" else copies[0])
        out = torch.zeros(case.n, case.k, dtype=self.dtype, device=self.device) if case.op == INTO else None
        rotation = Rotation([_call(provider, case, weight, x, out, self.dtype) for weight in copies])
        stopwatch, timing = self._stopwatch(rotation, provider.captured and case.op != "quantize")
        return Entry(stopwatch, timing, rotation.length, work(case, stored, self.dtype.itemsize))

    def _rows(
        self, case: Case, entries: dict[str, Entry], samples: dict[str, list[float]], load: machine.Load | None
    ) -> list[Row]:
        about = self.about | {
            "busy": any(during.is_busy for during in (load, self._limits_load) if during),
            "load": asdict(load) if load else None,
            "limits_load": asdict(self._limits_load) if self._limits_load else None,
            "clocks": machine.clocks(self.device),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        ours = samples[self.providers[0].name]
        rows = []
        for name, taken in samples.items():
            entry, summary = entries[name], summarize(taken)
            row: Row = {"op": case.op, "provider": name, "M": case.m, "N": case.n, "K": case.k}
            row |= asdict(summary) | {"timing": entry.timing, "rotations": entry.rotations}
            row |= _figures(case, entry.work, self.limits, summary.ms)
            row["versus_ours"] = asdict(paired_ratio(ours, taken)) if taken is not ours else None
            rows.append(row | about)
        return rows

    def _stopwatch(self, rotation: Rotation, capture: bool) -> tuple[Stopwatch, str]:
        """capture: not for quantize, which is done once a weight and looks at it to refuse NaN, and not every peer"""
        if self.device.type == "cpu":
            for _ in range(WARM_CALLS):
                rotation.step()
            return wall_stopwatch(rotation), "wall"
        try:
            return cuda_stopwatch(rotation, capture)
        except RuntimeError:  # there are other things that cannot be captured: the row says "events"
            return cuda_stopwatch(rotation, capture=False)


def _call(
    provider: Provider, case: Case, weight: Any, x: Tensor | None, out: Tensor | None, dtype: torch.dtype
) -> Call:
    """The op on one copy of the weight. For a gradient, the forward pass is done here, once."""
    if out is not None:
        return lambda: provider.dequantize_into(weight, out)
    if x is None:
        return lambda: provider.quantize(weight) if case.op == "quantize" else provider.dequantize(weight, dtype)
    if case.op == "forward":
        return lambda: provider.linear(weight, x)
    at = torch.zeros(len(x), case.k, dtype=dtype, device=x.device, requires_grad=True)
    y = provider.linear(weight, at)
    return lambda: torch.autograd.grad(y, at, x, retain_graph=True)


def _figures(case: Case, needed: Work, limits: Limits, ms: float) -> Row:
    """GB/s where bytes are the limit, TFLOP/s where the product is, and the share of what the limit allows."""
    bound, least = needed.bound(case.op, limits)
    by_bytes = bound == "bytes"
    return {
        "bytes": needed.bytes,
        "flops": needed.flops,
        "rate": needed.bytes / ms / 1e6 if by_bytes else needed.flops / ms / 1e9,
        "unit": "GB/s" if by_bytes else "TFLOP/s",
        "share": least / ms,
    }
