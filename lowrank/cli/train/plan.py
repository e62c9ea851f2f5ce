"""lowrank train RECIPE --plan"""

import json
import sys
from functools import cache
from typing import TYPE_CHECKING

from ...text_table import table

if TYPE_CHECKING:
    import torch

    from ...train.config import TrainConfig
    from ...train.plan.plan import RunPlan


LOADED = 0.75  # of the cores' time: with less, other work has the rest


def show(config: "TrainConfig", as_json: bool) -> int:
    """Prints what the run would take, and how long the limit of this machine allows it to be."""
    import torch

    from ...bench.kernels.plan import H200
    from ...train.data import encoded_or_none
    from ...train.plan.flops import runtime_bytes
    from ...train.plan.plan import make_plan

    plan = make_plan(config, encoded_or_none(config))
    device = torch.device(config.base.device if torch.cuda.is_available() else "cpu")
    limits = {machine_name(device): limit_tflops(config)}
    runtime = runtime_bytes(config.run.recompute) if config.base.device == "cpu" else 0
    if device.type == "cpu" and config.base.device != "cpu":
        limits["an H200, assumed"] = H200.matmul_tflops
    if as_json:
        times = {name: {"tflops": tflops, "seconds": plan.seconds(tflops)} for name, tflops in limits.items()}
        print(json.dumps({**plan.to_json(), "runtime_bytes": runtime, "limits": times}))
        return 0
    print(_text(config, plan, runtime, limits))
    return 0


def limit_tflops(config: "TrainConfig") -> float:
    """10^12 multiplications and additions a second of a large product, measured now; says if others have the cores.

    On a CPU the better of the run's compute type and float32, in which it may compute as well.
    """
    import torch

    from ...train.plan.memory import compute_dtype

    device = torch.device(config.base.device if torch.cuda.is_available() else "cpu")
    return _limit_of(device, compute_dtype(config))


@cache  # a machine's limit is measured once
def _limit_of(device: "torch.device", dtype: "torch.dtype") -> float:
    import torch

    from ...bench.kernels.limits import measure_product, share_of_cores

    if device.type != "cpu":
        return measure_product(device, dtype)
    limit = max(measure_product(device, choice, 3) for choice in {dtype, torch.float32})
    if (share := share_of_cores()) < LOADED:
        print(
            f"note: other work has a part of the cores (a product had {share:.0%} of them): the limit of this machine "
            "was measured beside it, and is higher",
            file=sys.stderr,
        )
    return limit


def machine_name(device: "object") -> str:
    """The processor or the GPU."""
    import torch

    from ...bench.machine import name

    assert isinstance(device, torch.device)
    return name(device)


def _text(config: "TrainConfig", plan: "RunPlan", runtime: int, limits: dict[str, float]) -> str:
    from ...train.plan.plan import missing_reason

    run = config.run
    stated = "as the recipe estimates" if config.data.estimated else "as the recipe states"
    counted = "counted" if plan.counted else f"{stated}; {missing_reason(config)}"
    rows = [(part.what, f"{part.bytes:,}", f"{part.bytes / 1e9:.3f}") for part in plan.parts]
    if runtime:
        rows.insert(0, ("Python and torch", f"{runtime:,}", f"{runtime / 1e9:.3f}"))
    peak = plan.peak_bytes + runtime
    rows.append(("predicted peak", f"{peak:,}", f"{peak / 1e9:.3f}"))
    lines = [
        f"trains {plan.trainable:,} of {plan.parameters + plan.trainable:,} parameters "
        f"({plan.trainable / plan.parameters:.4%} of the base)",
        f"{run.epochs:g} x {plan.entries:,} entries in {plan.steps:,} steps of {run.batch * run.accumulate} rows: "
        f"{plan.tokens:,} tokens, {plan.supervised:,} of them supervised ({counted})",
        f"{plan.flops:.4g} multiplications and additions, {plan.flops / plan.tokens / 1e9:.2f} GFLOP a token",
        "",
        table(rows, ("part", "bytes", "GB")),
    ]
    if plan.host_bytes:
        lines.append(f"and {plan.host_bytes / 1e9:.3f} GB of optimizer states in the host's memory")
    lines.append("")
    for name, tflops in limits.items():
        seconds = plan.seconds(tflops)
        lines.append(
            f"{name}: {tflops:.3g} TFLOP/s allow {_time(seconds)}, {plan.tokens / seconds:,.0f} tokens a second"
        )
    ranks = [
        (f"{rank.processes}", f"{rank.batch}", f"{rank.bytes / 1e9:.2f}", f"{rank.traffic / 1e9:.2f}")
        for rank in plan.ranks
    ]
    heads = ("GPUs", "run.batch", "GB at the peak", "GB passed a step")
    lines += ["", "In shards (run.parallel), a process, run.batch having a row for each:", table(ranks, heads)]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
