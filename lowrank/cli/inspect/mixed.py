"""lowrank inspect mixed"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...text_table import table
from ..arguments import add_verb, file_to_write
from .formats import add_documents, documents

if TYPE_CHECKING:
    from ...eval.formats.mixed import Plan, Sensitivity
    from ...eval.metrics.bootstrap import Interval


def add(what: Any) -> None:
    """The arguments of `lowrank inspect mixed`."""
    parser = add_verb(
        what,
        "mixed",
        "which linears deserve 8 bits for a budget: sensitivities, the best plan, and its curve",
        "lowrank inspect mixed embedded --bits 5 --out plan.json",
    )
    parser.add_argument("base", metavar="BASE", help='folder of weights, a GGUF file, or "embedded"')
    parser.add_argument("--bits", type=float, required=True, help="the budget, bits a weight over all block linears")
    parser.add_argument("--choices", default="nf4-dq,int8", help="formats to choose among (default: %(default)s)")
    parser.add_argument(
        "--out", type=file_to_write, metavar="FILE", help="write the plan, for `lowrank quantize --plan`"
    )
    add_documents(parser, "documents whose gradients are taken, one at a time (default: %(default)s)")
    parser.add_argument(
        "--measure",
        type=int,
        default=0,
        metavar="N",
        help="the loss of the plan, of its neighbours and of random plans of its size on N other documents",
    )
    parser.add_argument("--json", action="store_true", help="print plan, sensitivities and curve as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the plan and its curve."""
    from dataclasses import asdict

    from ...atomic_io import write_json
    from ...checkpoints.embedded import base_folder
    from ...eval.formats.mixed import curve, sensitivities, solve

    choices = [name.strip() for name in args.choices.split(",")]
    found = sensitivities(base_folder(args.base), documents(args), choices, progress=not args.json)
    plan, points = solve(found, args.bits), curve(found)
    measured = _measured(args, found, plan) if args.measure else {}
    if args.out:
        write_json(Path(args.out), plan.to_json())
    if args.json:
        sensitivity = {path: asdict(one) for path, one in found.items()}
        print(
            json.dumps(
                {
                    **plan.to_json(),
                    "sensitivities": sensitivity,
                    "curve": [[p.bits, p.cost] for p in points],
                    "measured": {name: asdict(cost) for name, cost in measured.items()},
                },
                indent=2,
            )
        )
        return 0
    print(plan.table())
    print(
        f"\n{plan.bits:.3f} bits a weight, expected cost {plan.cost:.5f} nats a token; the best plans by their bits:\n"
    )
    print(table([(f"{point.bits:.3f}", f"{point.cost:.5f}") for point in points], ("bits a weight", "expected cost")))
    if measured:
        rows = [(name, f"{one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]") for name, one in measured.items()]
        print(f"\nmeasured on {args.measure} other documents, nats a token above full precision:\n")
        print(table(rows, ("weights", "cost")))
    return 0


def _measured(args: argparse.Namespace, found: "dict[str, Sensitivity]", plan: "Plan") -> "dict[str, Interval]":
    """The plan beside each of its formats alone, and beside three random plans of its size."""
    from ...checkpoints.embedded import base_folder
    from ...eval.formats.mixed import Plan, control, measure_plans

    names = list(next(iter(found.values())).bits)
    plans = {name: Plan(dict.fromkeys(found, name), 0.0, 0.0) for name in names}
    plans[f"the plan, {plan.bits:.3f} bits"] = plan
    plans |= {f"random plan {seed}": control(found, plan.bits, seed) for seed in range(3)}
    others = documents(argparse.Namespace(base=args.base, data=args.data, n=args.n + args.measure))[args.n :]
    return measure_plans(base_folder(args.base), plans, others, progress=not args.json)
