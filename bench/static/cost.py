"""Static cost of a kernel, without a GPU: compiled ahead of time, disassembled, counted.

    python -m lowrank.bench.static.cost [--only NAME] [--targets sm_90 ...] [--write | --check]

Per element (a weight, for most kernels) and lane of a warp: issue slots, instructions of the ALU pipe, of the tensor
cores, and loads, in the innermost loop, or in the whole kernel where it has none. From these, how long an H200 takes at
least for a matrix of 11008 x 4096, and which of its limits says so. What no disassembly shows is left out: latencies,
bank conflicts, the beginning and the end of a kernel. The table is kept in `results/static_cost.json`; a new kernel is
an entry of `cases`, then --write. Beside its rows the table keeps a hash of each kernel: --changed passes over
those that are still what they were.
"""

import argparse
import ast
import hashlib
import importlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import triton
from triton import JITFunction
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from triton.language import constexpr

from lowrank.kernels.cuda import nvrtc, pairs

from .case import Case
from .cases import CASES

TARGETS = {
    **{f"sm_{capability}": GPUTarget("cuda", capability, 32) for capability in (80, 89, 90, 100, 120)},
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# The oldest Triton that the package takes has a table of its own, of the kernels that a token takes.
OLDEST_TRITON = "3.6"
IS_OLDEST = triton.__version__.startswith(f"{OLDEST_TRITON}.")
FOLDER = Path(__file__).parent.parent / "results"
OF_OLDEST = FOLDER / f"static_cost_triton_{OLDEST_TRITON}.json"
RESULTS = OF_OLDEST if IS_OLDEST else FOLDER / "static_cost.json"

# H200: measured rates of memory and tensor cores, and of each of 132 multiprocessors at 1.755 GHz the lanes a cycle.
BYTES_PER_SECOND = 4.3e12
FLOPS_PER_SECOND = 790e12
CYCLES_PER_SECOND = 132 * 1.755e9
LANES = {"slots": 128, "alu": 64, "loads": 32}
ELEMENTS = 11008 * 4096
TOLERANCE = 1.05  # of a committed rate

# The instructions that run on the ALU pipe; multiplications and fused ones run on another.
ALU = re.compile(
    r"PRMT|LOP3|LOP|MOV|SHF|SHL|SHR|IADD3|IADD|VIADD|VIADDMNMX|LEA|ISETP|FSETP|SEL|FSEL|FMNMX|IMNMX|VIMNMX|PLOP3|BMSK|SGXT|IABS"
)
TENSOR = re.compile(r"[HIQ]?G?MMA|UTC\w*MMA|v_mfma\w*")
LOAD = re.compile(r"LD[GSCL]?|LDSM|LDGSTS|LDTM|ds_read\w*|global_load\w*|buffer_load\w*|flat_load\w*")


@dataclass(frozen=True)
class Cost:
    """registers of a lane; spilled and shared bytes; then per element and lane; microseconds for 11008 x 4096, H200."""

    kernel: str
    target: str
    registers: int
    spilled: int
    shared: int
    slots: float
    alu: float
    tensor: float
    loads: float
    microseconds: float | None
    bound: str | None


COLUMNS = [field.name for field in fields(Cost)]


def cost(case: Case, target: str) -> Cost:
    """Compiles one kernel for one target and counts."""
    if is_cuda_c(case):
        text, shared, threads = disassembly(machine_code(case, TARGETS[target])), case.options["shared"], pairs.THREADS
    else:
        kernel = compiled(case, TARGETS[target])
        is_cuda = TARGETS[target].backend == "cuda"
        text = disassembly(kernel.asm["cubin"]) if is_cuda else kernel.asm["amdgcn"]
        shared, threads = kernel.metadata.shared, kernel.metadata.num_warps * TARGETS[target].warp_size
    if TARGETS[target].backend == "cuda":
        registers, spilled = attribute(text, "REGCOUNT"), attribute(text, "FRAME_SIZE")
        loop = inner_loop(sass(text))
    else:
        registers, spilled = metadata(text, "vgpr_count"), 4 * metadata(text, "vgpr_spill_count")
        loop = inner_loop(gcn(text))
    counts = {
        "slots": len(loop),
        "alu": sum(is_alu(name) for name in loop),
        "tensor": sum(TENSOR.fullmatch(name) is not None for name in loop),
        "loads": sum(LOAD.fullmatch(name) is not None for name in loop),
    }
    rates = {name: round(count * threads / case.elements, 3) for name, count in counts.items()}
    microseconds, bound = roofline(case, rates) if target == "sm_90" else (None, None)
    return Cost(case.name, target, registers, spilled, shared, **rates, microseconds=microseconds, bound=bound)


def roofline(case: Case, rates: dict[str, float]) -> tuple[float, str]:
    """The longest of the times that each limit alone would take, in microseconds, and the name of that limit."""
    seconds = {name: rates[name] / (lanes * CYCLES_PER_SECOND) for name, lanes in LANES.items()}
    seconds |= {"memory": case.bytes / BYTES_PER_SECOND, "tensor cores": case.flops / FLOPS_PER_SECOND}
    bound = max(seconds, key=lambda name: seconds[name])
    return round(seconds[bound] * ELEMENTS * 1e6, 2), bound


def is_cuda_c(case: Case) -> bool:
    """True for a kernel in CUDA C, whose compiler is NVRTC."""
    return case.kernel.startswith("kernels.cuda.")


def machine_code(case: Case, target: GPUTarget) -> bytes:
    """The cubin of a kernel in CUDA C."""
    constants = {name: int(value) for name, value in case.arguments.items() if value is not None}
    return nvrtc.to_machine_code(pairs.source(_name(case)), target.arch, constants)


def source(case: Case) -> str:
    """A hash of all that a compiler gets: the kernel with what it calls, and the case. The versions are `versions`."""
    text = pairs.source(_name(case)) if is_cuda_c(case) else "\n".join(_texts(_function(case), set()))
    what = f"{text} {case}"
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def _texts(function: JITFunction[Any], seen: set[str]) -> Iterator[str]:
    """The syntax of a kernel and of all of ours that it calls, without comments and docstrings, and its constants."""
    tree = function.parse()
    (definition,) = tree.body
    if ast.get_docstring(definition) is not None:
        del definition.body[0]
    yield ast.unparse(tree)
    for name in sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - seen):
        value = function.fn.__globals__.get(name)
        seen.add(name)
        if isinstance(value, JITFunction):
            yield from _texts(value, seen)
        elif isinstance(value, constexpr):
            yield f"{name} = {value.value}"


def _name(case: Case) -> str:
    return case.kernel.partition(":")[2]


def _function(case: Case) -> Any:
    return getattr(importlib.import_module(f"lowrank.{case.kernel.partition(':')[0]}"), _name(case))


def compiled(case: Case, target: GPUTarget) -> Any:
    """The kernel for a target; elsewhere than on NVIDIA's, without assembly."""
    function = _function(case)
    arguments = {name: case.arguments[name] for name in function.arg_names}
    if target.backend != "cuda" and "ASSEMBLY" in arguments:
        arguments["ASSEMBLY"] = False
    constants = {name: value for name, value in arguments.items() if not isinstance(value, str)}
    signature = {name: value if isinstance(value, str) else "constexpr" for name, value in arguments.items()}
    aligned = {
        (position,): [["tt.divisibility", 16]]
        for position, (name, kind) in enumerate(signature.items())
        if kind.startswith("*") or name in case.aligned
    }
    return compile(ASTSource(function, signature, constants, aligned), target=target, options=case.options)


def disassembly(cubin: bytes) -> str:
    """nvdisasm, which lies beside Triton's assembler."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, file.name], capture_output=True, text=True, check=True).stdout


def attribute(text: str, name: str) -> int:
    """A number that a cubin states about its kernel."""
    found = re.search(rf"EIATTR_{name}\n.*?index@.*?\n.*?\.word\s+0x([0-9a-f]+)", text, re.DOTALL)
    assert found is not None, name
    return int(found[1], 16)


def metadata(text: str, name: str) -> int:
    """A number that AMD's assembly states about its kernel."""
    found = re.search(rf"\.{name}:\s+(\d+)", text)
    assert found is not None, name
    return int(found[1])


# An instruction and the label that it may jump to, or a label of its own.
Line = tuple[str, str | None]


def sass(text: str) -> Iterable[Line]:
    """(label, None) and (instruction, the label it jumps to or "") of NVIDIA's machine code, without predicates."""
    for line in text.splitlines():
        label = re.match(r"(\.L\w+):", line)
        instruction = re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)([^;]*);", line)
        if label:
            yield label[1], None
        elif instruction:
            jump = re.search(r"`\((\.L\w+)\)", instruction[2]) if instruction[1] == "BRA" else None
            yield instruction[1], jump[1] if jump else ""


def gcn(text: str) -> Iterable[Line]:
    """The same of AMD's assembly."""
    for line in text.splitlines():
        label = re.match(r"(\.LBB\w+):", line)
        instruction = re.match(r"\t([a-z]\w+)([^;]*)", line)
        if label:
            yield label[1], None
        elif instruction:
            jump = re.search(r"(\.LBB\w+)", instruction[2]) if "branch" in instruction[1] else None
            yield instruction[1], jump[1] if jump else ""


def inner_loop(lines: Iterable[Line]) -> list[str]:
    """The instructions of the loop that holds most; all, where none jumps back.

    Where loops multiply matrices, one of them. A loop around another one does not count, if that one is more than half
    of it or has all of its products.
    """
    labels: dict[str, int] = {}
    names: list[str] = []
    loops: list[tuple[int, int]] = []
    for name, jump in lines:
        if jump is None:
            labels[name] = len(names)
            continue
        names.append(name)
        if jump in labels and names[labels[jump]] != name:  # a kernel ends with a jump to itself
            loops.append((labels[jump], len(names)))

    def products(loop: tuple[int, int]) -> int:
        return sum(TENSOR.fullmatch(name) is not None for name in names[slice(*loop)])

    def is_around(outer: tuple[int, int], inner: tuple[int, int]) -> bool:
        is_inside = outer != inner and outer[0] <= inner[0] and inner[1] <= outer[1]
        is_most = 2 * (inner[1] - inner[0]) > outer[1] - outer[0]  # not a few instructions that wait
        return is_inside and (is_most or 0 < products(inner) == products(outer))

    innermost = [loop for loop in loops if not any(is_around(loop, other) for other in loops)]
    start, end = max(innermost, key=lambda loop: (products(loop) > 0, loop[1] - loop[0]), default=(0, len(names)))
    return names[start:end]


def is_alu(name: str) -> bool:
    """NVIDIA: the ALU pipe. AMD: vector instructions that are neither loads nor matrix products."""
    return ALU.fullmatch(name) is not None or (name.startswith("v_") and TENSOR.fullmatch(name) is None)


def table(costs: list[Cost]) -> str:
    """The costs in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for row in costs:
        lines.append("| " + " | ".join("" if value is None else str(value) for value in asdict(row).values()) + " |")
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """The versions on which the counts depend. The assembler and the disassembler come with Triton."""
    return {"triton": triton.__version__, "nvrtc": nvrtc.version()}


def read(file: Path = RESULTS) -> tuple[dict[str, str], list[Cost]]:
    """The versions and the rows of a committed table."""
    stored = json.loads(file.read_text(encoding="utf-8"))
    return stored["versions"], [Cost(**row) for row in stored["rows"]]


def read_sources() -> dict[str, str]:
    """The hash of each kernel of the committed table as it was when its rows were made."""
    sources: dict[str, str] = json.loads(RESULTS.read_text(encoding="utf-8"))["sources"]
    return sources


def changed(cases: Iterable[Case]) -> list[Case]:
    """Those that are not what the committed table was made of: the same source and versions cost the same."""
    if read()[0] != versions():
        return list(cases)
    sources = read_sources()
    return [case for case in cases if sources.get(case.name) != source(case)]


def write(new: list[Cost]) -> None:
    """Puts rows into the table, in JSON and beside it in Markdown. Those of other versions, or of no case, fall out."""
    stored_versions, stored = read() if RESULTS.exists() else ({}, [])
    kept = {(row.kernel, row.target): row for row in (stored if stored_versions == versions() else [])}
    kept |= {(row.kernel, row.target): row for row in new}
    costs = [kept[key] for case in CASES for target in case.targets if (key := (case.name, target)) in kept]
    rows = ",\n".join(json.dumps(asdict(row)) for row in costs)
    sources = read_sources() if stored_versions == versions() else {}
    written = {(row.kernel, row.target) for row in new}
    sources |= {case.name: source(case) for case in CASES if {(case.name, t) for t in case.targets} <= written}
    sources = {case.name: sources.get(case.name, "") for case in CASES}
    about = f'"versions": {json.dumps(versions())}, "sources": {json.dumps(sources)}'
    RESULTS.write_text(f'{{{about}, "rows": [\n{rows}\n]}}\n', encoding="utf-8")
    made = f"Made by `python -m lowrank.bench.static.cost --write` with {versions()}.\n\n"
    RESULTS.with_suffix(".md").write_text(made + table(costs) + "\n", encoding="utf-8")


def complaints(costs: list[Cost], stored_versions: dict[str, str], stored: list[Cost]) -> list[str]:
    """Regressions against the stored table: a spill, a row that it lacks, or a rate more than 5 % above it."""
    if stored_versions != versions():
        return [f"{RESULTS.name} was made with {stored_versions}, this is {versions()}: make it anew with --write"]
    before = {(row.kernel, row.target): row for row in stored}
    found = []
    for row in costs:
        name = f"{row.kernel} on {row.target}"
        if row.spilled:
            found.append(f"{name} spills {row.spilled} bytes")
        if (row.kernel, row.target) not in before:
            found.append(f"{name} is not in {RESULTS.name}: add it with --write")
            continue
        for rate in ("slots", "alu", "tensor", "loads"):
            now, then = getattr(row, rate), getattr(before[row.kernel, row.target], rate)
            if now > TOLERANCE * then:
                found.append(f"{name}: {rate} {now} an element, {then} in {RESULTS.name}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lowrank.bench.static.cost", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="kernels whose name holds this")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", action="store_true", help=f"keep these rows in results/{RESULTS.name}, and in .md")
    action.add_argument("--check", action="store_true", help=f"exit status 1 if worse than results/{RESULTS.name}")
    parser.add_argument("--changed", action="store_true", help="only kernels whose source is not that of the table")
    arguments = parser.parse_args()
    wanted = [case for case in CASES if arguments.only in case.name]
    wanted = changed(wanted) if arguments.changed else wanted
    costs = [cost(case, target) for case in wanted for target in arguments.targets if target in case.targets]
    print(table(costs))
    if arguments.write:
        write(costs)
    found = complaints(costs, *read()) if arguments.check else []
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
