"""lowrank bench kernels, and the parser of `lowrank bench`; each of the others is in a file of its name"""

import argparse
from importlib.util import find_spec
from typing import Any

from ...bench.kernels import products
from ..arguments import add_verb
from . import batch, generate, judge, load, sweep, train


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "bench",
        "time the kernels, training or generation beside their peers, or a Llama of true size",
        "lowrank bench kernels --peers --shapes quick",
    )
    parser.add_argument(
        "--predict",
        choices=("h200",),
        metavar="GPU",
        help="how long a token and a training step of Llama 2 7B should take on a GPU (h200), from counts; no run",
    )
    parser.set_defaults(run=_predict)
    benches = parser.add_subparsers(title="benches", metavar="BENCH")
    kernels = add_verb(
        benches,
        "kernels",
        "quantize, dequantize, the 4-bit product and its gradient, checked against float64 and then timed",
        "lowrank bench kernels --explain 16x4096x11008",
    )
    products.add_arguments(kernels)
    kernels.set_defaults(run=products.run)
    load.add(benches)
    train.add(benches)
    sweep.add(benches)
    generate.add(benches)
    batch.add(benches)
    judge.add(benches)


def _predict(args: argparse.Namespace) -> int:
    """Prints the prediction; a bench must be named where there is none."""
    if args.predict is None:
        raise ValueError("bench: name a bench (lowrank bench --help lists them), or --predict h200")
    if find_spec("triton") is None:
        raise ValueError("--predict: counts launches of Triton, which is not installed (it exists on Linux only)")
    from ...bench.static.predict import GPUS, show

    print(show(GPUS[args.predict]))
    return 0
