"""lowrank bench kernels, and the parser of `lowrank bench`; each of the others is in a file of its name"""

from typing import Any

from ...bench.kernels import products
from ..arguments import add_verb
from . import generate, load, sweep, train


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "bench",
        "time the kernels, training or generation beside their peers, or a Llama of true size",
        "lowrank bench kernels --peers --shapes quick",
    )
    benches = parser.add_subparsers(title="benches", metavar="BENCH", required=True)
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
