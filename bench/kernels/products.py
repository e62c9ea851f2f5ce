"""The kernel bench: ours and the peers interleaved, every output checked against float64 before anything is timed.

    python -m lowrank.bench.kernels.products --device cuda --peers --shapes full --out bench/results

is `lowrank bench kernels` with the same arguments; it needs torch, triton and numpy alone.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowrank.text_table import table

from .plan import FULL, H200, OPS, Case, Limits, expected_seconds, plan

if TYPE_CHECKING:
    from lowrank.kernels.ops import Choice

    from ..rows import Row
    from .peers import Provider
    from .run import KernelRun

BUDGET_SECONDS = 480  # for a full plan on one H200
RESULTS = Path(__file__).parents[1] / "results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the kernel bench."""
    parser.add_argument("--device", choices=tuple(FULL), default="cpu", help="where to run (default: %(default)s)")
    parser.add_argument("--dtype", choices=("bf16", "fp16", "fp32"), default="bf16", help="of x, y and dequantized W")
    parser.add_argument(
        "--shapes",
        type=_shapes,
        default="quick",
        metavar="SHAPES",
        help='"quick" (one shape, the default), "full" (the six of Llama 2 7B), or NxK,... such as 4096x4096',
    )
    parser.add_argument(
        "--peers",
        nargs="?",
        const="all",
        default="dense",
        metavar="NAME,...",
        help="compare with every peer that is installed, or with those named (default: dense)",
    )
    parser.add_argument("--explain", metavar="MxNxK", type=_shape, help="say which path takes each op, and why; no run")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the plan, its expected time and the limits; no run"
    )
    parser.add_argument(
        "--out",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="add the rows to a .jsonl file, or to <machine>.jsonl in a folder; may be given twice",
    )
    parser.add_argument("--rows", type=int, metavar="M", help="only products with so many rows of x")
    parser.add_argument(
        "--go-on", action="store_true", help="pass over cases of which the first --out has rows of the same source"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object a line instead of text")


def run(args: argparse.Namespace) -> int:
    """The plan, the choices, or the figures; exit status 1 if an output was wrong, of which there is no figure."""
    import torch

    from .peers import PEERS, find

    if args.explain:
        return _explain(args)
    present = args.device == "cpu" or torch.cuda.is_available()
    if not present and not args.dry_run:
        raise ValueError(f"--device cuda: no CUDA device here (torch {torch.__version__}); --dry-run prints the plan")
    cases = [case for case in plan(args.device, args.shapes) if args.rows in (None, case.m)]
    providers, absent = find(PEERS if args.peers == "all" else args.peers.split(","))
    for peer, reason in absent.items():
        _note(f"{peer} is not compared: {reason}")
    if args.dry_run and not present:
        return _show_plan(args, cases, providers, H200)
    from .run import KernelRun

    kernel_run = KernelRun(providers, torch.device(args.device, 0), _dtype(args.dtype))
    if args.dry_run:
        return _show_plan(args, cases, providers, kernel_run.limits)
    if not args.json:
        print(f"{kernel_run.machine}\n{_limits_line(kernel_run.limits, args.dtype)}")
        print("\n".join(_stored_bars(kernel_run.machine, args.device)))
    if args.go_on:
        cases = _not_done(args, cases, kernel_run)
    if not args.json:
        print(_expected(args, cases, providers, kernel_run.limits))
    return _run_shapes(args, cases, kernel_run)


def _explain(args: argparse.Namespace) -> int:
    import torch

    from lowrank.kernels import ops

    m, n, k = args.explain
    choices: list[Choice] = ops.explain(m, n, k, dtype=_dtype(args.dtype), device=torch.device(args.device))
    if args.json:
        for choice in choices:
            print(json.dumps({"op": choice.op, "path": choice.path, "reason": choice.reason}))
    else:
        rows = [(choice.op, choice.path, choice.reason) for choice in choices]
        print(table(rows, ("operation", "path", "reason")))
    return 0


def _show_plan(args: argparse.Namespace, cases: Sequence[Case], providers: "Sequence[Provider]", limits: Limits) -> int:
    """Every case with the time that the limits allow it, and a guess at the whole."""
    from .plan import work

    itemsize = _dtype(args.dtype).itemsize
    least = [(case, *work(case, case.n * case.k // 2, itemsize).bound(case.op, limits)) for case in cases]
    if args.json:
        for case, bound, ms in least:
            print(json.dumps({"op": case.op, "M": case.m, "N": case.n, "K": case.k, "bound": bound, "least_ms": ms}))
        return 0
    print(_limits_line(limits, args.dtype))
    for case, bound, ms in least:
        print(f"{case.op:15} {case.shape:>18}   at least {ms:10.4f} ms, bound by {bound}")
    print(_expected(args, cases, providers, limits))
    return 0


def _expected(args: argparse.Namespace, cases: Sequence[Case], providers: "Sequence[Provider]", limits: Limits) -> str:
    """The count of cases, the providers, and a guess at the time that they take."""
    from .run import REPETITIONS

    able = {op: sum(op in provider.ops for provider in providers) for op in OPS}
    seconds = expected_seconds(cases, args.device, limits, able, REPETITIONS, _dtype(args.dtype).itemsize)
    names = ", ".join(provider.name for provider in providers)
    expected = f"{len(cases)} cases, {REPETITIONS} repetitions; {names}; expected {seconds / 60:.1f} minutes in all"
    budget = f" of the {BUDGET_SECONDS / 60:.0f} that a full plan has on one H200" if args.device == "cuda" else ""
    return expected + budget


def _run_shapes(args: argparse.Namespace, cases: Sequence[Case], kernel_run: "KernelRun") -> int:
    """Checks and then times a shape after the other, so that its rows are there before the next is made."""
    wrong, kept = 0, []
    for shape in dict.fromkeys((case.n, case.k) for case in cases):
        shaped = [case for case in cases if (case.n, case.k) == shape]
        if not args.json:
            print(f"{shape[0]}x{shape[1]}: {len(shaped)} cases, first against float64")
        wrong += _count_wrong(shaped, kernel_run)
        kept += _measure(args, shaped, kernel_run)
    if not args.json:
        for bar in bars_of(kept, args.device):
            print(bar)
    if wrong:
        print(f"{wrong} outputs are wrong: they were not timed", file=sys.stderr)
    return 1 if wrong else 0


def _count_wrong(cases: Sequence[Case], kernel_run: "KernelRun") -> int:
    """The outputs that are wrong, which are not timed; prints them, and what a peer refuses."""
    from .run import Refusal

    wrong = 0
    for found in kernel_run.check(cases):
        if isinstance(found, Refusal):
            _note(f"{found.case.op} {found.case.shape}: {found.provider} is not compared: {found.reason}")
        elif not found.has_passed:
            wrong += 1
            kernel_run.leave_out(found.provider, found.case)
            print(f"wrong: {found}", file=sys.stderr)
    return wrong


def _not_done(args: argparse.Namespace, cases: Sequence[Case], kernel_run: "KernelRun") -> list[Case]:
    """The cases without a row of ours from the same source in the first file of --out."""
    from .. import rows

    files = _files(args, kernel_run.machine)
    stored = rows.read(files[0]) if files and files[0].exists() else []
    done = {
        tuple(row[key] for key in ("op", "N", "K", "M"))
        for row in stored
        if (row["provider"], row["dtype"], row["source"])
        == ("ours", kernel_run.about["dtype"], kernel_run.about["source"])
    }
    left = [case for case in cases if (case.op, case.n, case.k, case.m) not in done]
    if len(left) < len(cases):
        _note(f"{len(cases) - len(left)} of {len(cases)} cases were done by an earlier call")
    return left


def _files(args: argparse.Namespace, machine_name: str) -> list[Path]:
    from ..machine import file_name

    return [path / file_name(machine_name) if path.suffix != ".jsonl" else path for path in args.out]


def _stored_bars(machine: str, device: str) -> Iterator[str]:
    """The bars that this machine's stored rows hold and miss: a speed belongs to the machine it was measured on."""
    from .. import rows
    from ..machine import file_name
    from .targets import bars

    stored = RESULTS / file_name(machine)
    if not stored.exists():
        yield f"no rows of this machine are stored ({stored.name}): which bars hold on it is not known"
        return
    latest = [row for row in rows.latest(rows.read(stored)) if row["device"] == device]
    dates = sorted({row["date"][:10] for row in latest})
    yield f"by the stored rows of this machine, {' and '.join(dates)}:"
    yield from (f"  {bar}" for bar in bars(latest, device, _instruction_set(device)))


def _instruction_set(device: str) -> str:
    """The one of the C library that is in use on a CPU, or nothing."""
    from lowrank.kernels.cpu import library

    return "" if device == "cuda" or library.unavailable_reason() else library.instruction_set()


def bars_of(measured: "Sequence[Row]", device: str) -> Iterator[Any]:
    """The bars of this device that the rows can speak of."""
    from .targets import bars

    return bars(measured, device, _instruction_set(device))


def _measure(args: argparse.Namespace, cases: Sequence[Case], kernel_run: "KernelRun") -> "list[Row]":
    """The rows of the cases, each printed and put into every file as it comes; those of a busy machine are not kept."""
    from .. import rows

    files = _files(args, kernel_run.machine)
    thrown_away, kept = 0, []
    for measured in kernel_run.measure(cases):
        print("\n".join(json.dumps(row) if args.json else _line(row) for row in measured), flush=True)
        if measured[0]["busy"]:
            thrown_away += 1
            continue
        kept += measured
        for path in files:
            rows.append(path, measured)
    if thrown_away:
        _note(f"{thrown_away} of {len(cases)} cases ran on a busy machine: their rows are marked, and no file has them")
    return kept


def _line(row: "Row") -> str:
    """One row for a reader."""
    shape = "x".join(str(row[size]) for size in "MNK" if row[size] is not None)
    versus: dict[str, Any] | None = row["versus_ours"]
    ratio = f"   {versus['ratio']:.2f} x ours [{versus['low']:.2f}, {versus['high']:.2f}]" if versus else ""
    loads = [row["load"], row["limits_load"]]  # a share of limits that were measured beside others means nothing
    others, steal = (max(load[share] for load in loads) if row["busy"] else 0.0 for share in ("others", "steal"))
    busy = f"   busy: {others:.0%} others, {steal:.0%} stolen" if row["busy"] else ""
    return (
        f"{row['op']:15} {shape:>18}  {row['provider']:24} {row['ms']:10.4f} ms  (min {row['ms_min']:.4f}, "
        f"spread {row['ms_spread']:.4f})  {row['rate']:8.4g} {row['unit']:7} {row['share']:6.1%}{ratio}{busy}"
    )


def _limits_line(limits: Limits, dtype: str) -> str:
    how = "measured" if limits.measured else "assumed, those of an H200: there is no CUDA device here"
    return (
        f"limits ({how}): copy {limits.copy_gbs:,.1f} GB/s read and written, read {limits.read_gbs:,.1f} GB/s, "
        f"{dtype} product {limits.matmul_tflops:.4g} TFLOP/s"
    )


def _dtype(name: str) -> Any:
    from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES

    return DENSE_DTYPES[name]


def _shape(text: str) -> tuple[int, int, int]:
    """ "16x4096x11008" -> (16, 4096, 11008)"""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){2}", text):
        raise argparse.ArgumentTypeError(f"must be MxNxK, such as 16x4096x11008, got {text!r}")
    m, n, k = map(int, text.split("x"))
    return m, n, k


def _shapes(text: str) -> str | tuple[tuple[int, int], ...]:
    """ "4096x4096,11008x4096" -> ((4096, 4096), (11008, 4096))"""
    if text in ("quick", "full"):
        return text
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*(,[1-9]\d*x[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError(f'must be "quick", "full" or NxK,NxK such as 4096x4096, got {text!r}')
    return tuple((int(n), int(k)) for n, _, k in (shape.partition("x") for shape in text.split(",")))


def _note(message: str) -> None:
    print(f"note: {message}", file=sys.stderr)


def main(arguments: Iterable[str] | None = None) -> int:
    """The bench without the command line around it."""
    parser = argparse.ArgumentParser(
        "python -m lowrank.bench.kernels.products", description="Ours and the peers, timed."
    )
    add_arguments(parser)
    args = parser.parse_args(None if arguments is None else list(arguments))
    try:
        return run(args)
    except ValueError as mistake:
        print(f"{parser.prog}: {mistake}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
