"""lowrank bench kernels, and the parser of `lowrank bench`; each of the others is in a file of its name"""

from typing import Any

from ..bench import bench_kernels
from . import bench_generate, bench_load, bench_train
from .arguments import add_verb


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
    bench_kernels.add_arguments(kernels)
    kernels.set_defaults(run=bench_kernels.run)
    bench_load.add(benches)
    bench_train.add(benches)
    bench_generate.add(benches)
