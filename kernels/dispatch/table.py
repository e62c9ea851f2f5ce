"""The table of kernels for each operation, read from the top.

A kernel is chosen by the operation, the device, the dtype, the shape, and the layout of the weight: the first row none
of whose rules objects. The objections of the rows above it are the reason that is given. The last row of every
operation is plain torch, which takes everything.

M rows of x flattened, N out_features, K in_features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from ..cpu import library
from ..cpu.crossover import first_rows
from ..cuda import gemv, nvrtc
from ..weights.quantized_weight import KERNEL_DTYPES, Blockwise4bit, QuantizedWeight, Repacked4bit, RowwiseInt8
from ..weights.repack import not_repackable_reason
from .crossover import crossover, is_here

OLDEST_CAPABILITY = (8, 0)  # of a GPU for which the Triton kernels are written


class Case(NamedTuple):
    """One operation: `op` on W [n, k] in `format`, stored in `layout`, for m rows of x in `dtype` on `device`."""

    op: str
    m: int
    n: int
    k: int
    dtype: torch.dtype
    device: torch.device
    format: str
    layout: type[QuantizedWeight]
    blocksize: int = 64


Rule = Callable[[Case], str]  # the reason why a kernel does not take a case, "" if it does


def no_triton_reason(case: Case) -> str:
    if find_spec("triton") is None:
        return "Triton is not installed (it exists on Linux only)"
    if is_here(case.device) and (got := torch.cuda.get_device_capability(case.device)) < OLDEST_CAPABILITY:
        oldest = ".".join(map(str, OLDEST_CAPABILITY))
        return f"Triton's kernels need compute capability {oldest}, this GPU has {got[0]}.{got[1]}"
    return ""


def no_c_library_reason(case: Case) -> str:
    return library.unavailable_reason()


DEVICES: dict[Rule, str] = {
    no_triton_reason: "cuda",
    no_c_library_reason: "cpu",
}  # a kernel whose first rule this is is for no other device


def dtype_reason(case: Case) -> str:
    names = ", ".join(short(dtype) for dtype in KERNEL_DTYPES)
    return "" if case.dtype in KERNEL_DTYPES else f"the kernels take {names}, this is {short(case.dtype)}"


def no_pair_table_reason(case: Case) -> str:
    of_any_gpu = gemv.unsupported_reason(case.m, case.n, case.k, case.dtype)
    if of_any_gpu or not is_here(case.device):
        return of_any_gpu
    properties = torch.cuda.get_device_properties(case.device)
    most = getattr(properties, "shared_memory_per_block_optin", gemv.MOST_SHARED)  # not in torch's types
    return nvrtc.unavailable_reason() or gemv.unsupported_reason(case.m, case.n, case.k, case.dtype, most)


def no_weights_reason(case: Case) -> str:
    return "" if case.n * case.k else f"W [{case.n}, {case.k}] holds no weight"


def no_rows_reason(case: Case) -> str:
    return "" if case.m else "x has no rows"


def above_scratch_crossover_reason(case: Case) -> str:
    limit = crossover(case.device, case.format, case.op, case.dtype)
    if case.m < limit.scratch:
        return ""
    return f"M {case.m} is not below {limit.scratch}, from where the vendor's GEMM is as fast ({limit.known})"


def above_fused_crossover_reason(case: Case) -> str:
    limit = crossover(case.device, case.format, case.op, case.dtype)
    if case.m < limit.fused:
        return ""
    return f"M {case.m} is not below {limit.fused}, from where tiles of 128 rows are as fast ({limit.known})"


def not_16_bits_reason(case: Case) -> str:
    return "" if case.dtype.itemsize == 2 else f"the matrix units have no IEEE product in {short(case.dtype)}"


def above_gemv_rows_reason(case: Case) -> str:
    limit = first_rows(C_DEQUANT_GEMM, case.op, case.dtype)
    if case.m < limit.m:
        return ""
    return f"M {case.m} is not below {limit.m}, from where the vendor's GEMM on panels of W is as fast ({limit.known})"


def no_matrix_unit_reason(case: Case) -> str:
    if case.dtype != torch.bfloat16:
        return f"the matrix unit takes bfloat16, this is {short(case.dtype)}"
    name = library.instruction_set()
    return "" if name == library.MATRIX_UNIT else f"the instruction set in use, {name}, has no matrix unit"


def no_float_panels_reason(case: Case) -> str:
    if case.m < library.FLOAT_PANELS_FROM:
        return f"M {case.m} is below {library.FLOAT_PANELS_FROM}, up to where looking up in registers is as fast"
    if case.dtype == torch.bfloat16 and library.instruction_set() == library.BF16_DOTS:
        return "bfloat16 is not widened where dot products take it"
    return ""


def no_bf16_dots_reason(case: Case) -> str:
    if case.dtype != torch.bfloat16:
        return f"the dot products take bfloat16, this is {short(case.dtype)}"
    name = library.instruction_set()
    return "" if name == library.BF16_DOTS else f"the instruction set in use, {name}, takes no dot products of bfloat16"


def ragged_rows_reason(case: Case) -> str:
    if case.blocksize % 64:
        return f"products in bfloat16 are of blocks of 64 or more, this is of {case.blocksize}"
    return "" if case.k % case.blocksize == 0 else f"K {case.k} is no multiple of blocksize {case.blocksize}"


def below_min_rows_reason(name: str) -> Rule:
    """The rule that x has at least as many rows as the measured crossover of the kernel of this name."""

    def rule(case: Case) -> str:
        limit = first_rows(name, case.op, case.dtype)
        if case.m >= limit.m:
            return ""
        return f"M {case.m} is below {limit.m}, up to where looking up in registers is as fast ({limit.known})"

    return rule


@dataclass(frozen=True)
class Kernel:
    """One row: a function that computes `op` for weights in `layout`, and the rules that keep it from a case.

    name         as `explain` prints it
    function     "MODULE.FUNCTION" in `kernels`: a name, as Triton's modules can be imported on Linux only
    layout       None for every one
    description  of its merit: the reason that is given where no row above it objects
    """

    op: str
    name: str
    function: str
    layout: type[QuantizedWeight] | None
    description: str
    rules: tuple[Rule, ...] = ()

    @property
    def has_lookup(self) -> bool:
        """True if its kernels turn codes into levels by `triton.lookup`."""
        return self.function.startswith(("triton.gemv.", "triton.gemm."))

    def is_for(self, case: Case) -> bool:
        device = DEVICES.get(self.rules[0]) if self.rules else None
        return self.op == case.op and self.layout in (None, case.layout) and device in (None, case.device.type)

    def unsupported_reason(self, case: Case) -> str:
        """The rule that keeps this kernel from the case, "" if none does."""
        return next(filter(None, (rule(case) for rule in self.rules)), "")

    def can_run(self, case: Case) -> bool:
        """True if no rule keeps this kernel from the case."""
        return not self.unsupported_reason(case)

    @cached_property
    def run(self) -> Callable[..., Any]:
        """The function that `function` names; its module is imported at first use."""
        module, _, name = self.function.rpartition(".")
        run: Callable[..., Any] = getattr(import_module(f"..{module}", __package__), name)
        return run


QUANTIZE, DEQUANTIZE, FORWARD, BACKWARD = OPS = ("quantize", "dequantize", "linear forward", "linear dX")

PAIRS = "table of pairs"
DECODE, FUSED, SCRATCH, PLAIN = "Triton decode", "Triton fused", "scratch + GEMM", "plain torch"
C_GEMV, C_AMX, C_DOTS, C_DEQUANT_GEMM = "C", "C, matrix unit", "C, bfloat16 dot products", "C panels + GEMM"
FLOAT_PANELS = "C, float32 panels"

NO_KERNEL = "no kernel is written for it"
ONE_READ = "W is read once"
ONE_LAUNCH = "nested maxima are resolved in the one launch"
IN_PAIRS = "W is read in 4 bits, a byte of which is the address of two levels"
FROM_4_BITS = "W is read in 4 bits and never written: its bytes are the limit"
DECODED_ONCE = "W is read in 4 bits and becomes a matrix in registers, once for 128 rows"
ROWS = "the codes go to the matrix units as they are"
ONE_GEMM = "W is dequantized once into scratch for the vendor's GEMM, and an adapter rides along"

AS_TILES = "W becomes bfloat16 tiles in the cache, from codes, as the matrix unit wants them"
IN_DOTS = "W becomes bfloat16 in the cache, from codes, a few kilobytes at a time, for dot products of pairs"
IN_FLOAT_PANELS = "W becomes float32 in the first-level cache, from codes, 16 kB at a time, and x or dY is widened"
IN_REGISTERS = "codes are looked up in registers, W is read once and written nowhere"
A_PANEL = "W is dequantized a panel at a time, into the cache, for the vendor's GEMM"

ON_GPU = (no_triton_reason, dtype_reason, no_weights_reason)
VERY_FEW_ROWS = (*ON_GPU, no_rows_reason, no_pair_table_reason)
FEW_ROWS = (*ON_GPU, no_rows_reason, above_scratch_crossover_reason, above_fused_crossover_reason)
MIDDLE_ROWS = (*ON_GPU, no_rows_reason, not_16_bits_reason, above_scratch_crossover_reason)
INT8_ROWS = (*ON_GPU, no_rows_reason, above_scratch_crossover_reason)
ANY_ROWS = (*ON_GPU, no_rows_reason)
ON_CPU = (no_c_library_reason, dtype_reason, no_weights_reason)
FEW_ROWS_ON_CPU = (*ON_CPU, no_rows_reason, above_gemv_rows_reason)
FLOAT_PANEL_ROWS = (*FEW_ROWS_ON_CPU, no_float_panels_reason)
TILED_ROWS = (*ON_CPU, no_rows_reason, no_matrix_unit_reason, ragged_rows_reason, below_min_rows_reason(C_AMX))
DOT_ROWS = (*ON_CPU, no_rows_reason, no_bf16_dots_reason, ragged_rows_reason, below_min_rows_reason(C_DOTS))
ANY_ROWS_ON_CPU = (*ON_CPU, no_rows_reason)

TABLE = (
    Kernel(QUANTIZE, "Triton", "triton.quantize.quantize_4bit", Blockwise4bit, ONE_READ, ON_GPU),
    Kernel(QUANTIZE, C_GEMV, "cpu.linear.quantize_4bit", Blockwise4bit, ONE_READ, ON_CPU),
    Kernel(QUANTIZE, PLAIN, "reference.weights.quantize", None, NO_KERNEL),
    Kernel(DEQUANTIZE, "Triton", "triton.dequantize.dequantize_4bit", Blockwise4bit, ONE_LAUNCH, ON_GPU),
    Kernel(DEQUANTIZE, "Triton, repacked", "triton.dequantize.dequantize_repacked", Repacked4bit, ONE_LAUNCH, ON_GPU),
    Kernel(DEQUANTIZE, C_GEMV, "cpu.linear.dequantize", Blockwise4bit, ONE_READ, ON_CPU),
    Kernel(DEQUANTIZE, C_GEMV, "cpu.linear.dequantize", RowwiseInt8, ONE_READ, ON_CPU),
    Kernel(DEQUANTIZE, PLAIN, "reference.weights.dequantize", None, NO_KERNEL),
    Kernel(FORWARD, PAIRS, "cuda.gemv.decode_linear", Repacked4bit, IN_PAIRS, VERY_FEW_ROWS),
    Kernel(FORWARD, DECODE, "triton.gemv.decode_linear", Repacked4bit, FROM_4_BITS, FEW_ROWS),
    Kernel(FORWARD, FUSED, "triton.gemm.fused_linear", Repacked4bit, DECODED_ONCE, MIDDLE_ROWS),
    Kernel(FORWARD, "Triton int8", "triton.int8_linear.linear", RowwiseInt8, ROWS, INT8_ROWS),
    Kernel(FORWARD, SCRATCH, "dispatch.dequant_gemm.linear", None, ONE_GEMM, ANY_ROWS),
    Kernel(FORWARD, C_AMX, "cpu.linear.tiled_linear", Blockwise4bit, AS_TILES, TILED_ROWS),
    Kernel(FORWARD, C_DOTS, "cpu.linear.dot_linear", Blockwise4bit, IN_DOTS, DOT_ROWS),
    Kernel(FORWARD, FLOAT_PANELS, "cpu.linear.linear", Blockwise4bit, IN_FLOAT_PANELS, FLOAT_PANEL_ROWS),
    Kernel(FORWARD, C_GEMV, "cpu.linear.linear", Blockwise4bit, IN_REGISTERS, FEW_ROWS_ON_CPU),
    Kernel(FORWARD, FLOAT_PANELS, "cpu.linear.linear", RowwiseInt8, IN_FLOAT_PANELS, FLOAT_PANEL_ROWS),
    Kernel(FORWARD, C_GEMV, "cpu.linear.linear", RowwiseInt8, IN_REGISTERS, FEW_ROWS_ON_CPU),
    Kernel(FORWARD, C_DEQUANT_GEMM, "cpu.linear.panel_linear", Blockwise4bit, A_PANEL, ANY_ROWS_ON_CPU),
    Kernel(FORWARD, C_DEQUANT_GEMM, "cpu.linear.panel_linear", RowwiseInt8, A_PANEL, ANY_ROWS_ON_CPU),
    Kernel(FORWARD, PLAIN, "reference.weights.linear", None, NO_KERNEL),
    Kernel(BACKWARD, DECODE, "triton.gemv.decode_linear_backward", Repacked4bit, FROM_4_BITS, FEW_ROWS),
    Kernel(BACKWARD, FUSED, "triton.gemm.fused_linear_backward", Repacked4bit, DECODED_ONCE, MIDDLE_ROWS),
    Kernel(BACKWARD, "Triton int8", "triton.int8_linear.linear_backward", RowwiseInt8, ROWS, INT8_ROWS),
    Kernel(BACKWARD, SCRATCH, "dispatch.dequant_gemm.linear_backward", None, ONE_GEMM, ANY_ROWS),
    Kernel(BACKWARD, C_AMX, "cpu.linear.tiled_linear_backward", Blockwise4bit, AS_TILES, TILED_ROWS),
    Kernel(BACKWARD, C_DOTS, "cpu.linear.dot_linear_backward", Blockwise4bit, IN_DOTS, DOT_ROWS),
    Kernel(BACKWARD, FLOAT_PANELS, "cpu.linear.linear_backward", Blockwise4bit, IN_FLOAT_PANELS, FEW_ROWS_ON_CPU),
    Kernel(BACKWARD, FLOAT_PANELS, "cpu.linear.linear_backward", RowwiseInt8, IN_FLOAT_PANELS, FEW_ROWS_ON_CPU),
    Kernel(BACKWARD, C_DEQUANT_GEMM, "cpu.linear.panel_linear_backward", Blockwise4bit, A_PANEL, ANY_ROWS_ON_CPU),
    Kernel(BACKWARD, C_DEQUANT_GEMM, "cpu.linear.panel_linear_backward", RowwiseInt8, A_PANEL, ANY_ROWS_ON_CPU),
    Kernel(BACKWARD, PLAIN, "reference.weights.linear_backward", None, NO_KERNEL),
)


@lru_cache(maxsize=4096)  # a prompt of every length is a case
def choose(case: Case) -> Kernel:
    """The first kernel of the table that takes the case."""
    return next(kernel for kernel in TABLE if kernel.is_for(case) and kernel.can_run(case))


@lru_cache(maxsize=4096)
def choice_reason(case: Case) -> str:
    """The reason for the choice of `choose`: the objections of the kernels before it, or its own merit."""
    chosen = choose(case)
    objections = [kernel.unsupported_reason(case) for kernel in TABLE[: TABLE.index(chosen)] if kernel.is_for(case)]
    return "; ".join(dict.fromkeys(objections)) or chosen.description


def not_repacked_reason(
    shape: tuple[int, ...], blocksize: int, format: str, dtype: torch.dtype, device: torch.device
) -> str:
    """The reason why a 4-bit weight keeps the order of files on a device, "" if it is repacked there."""
    if reason := not_repackable_reason(shape, blocksize):
        return reason
    case = Case(FORWARD, 1, shape[0], shape[1], dtype, device, format, Repacked4bit, blocksize)
    return "" if choose(case).layout is Repacked4bit else choice_reason(case)


def is_repacked(shape: tuple[int, ...], blocksize: int, format: str, dtype: torch.dtype, device: torch.device) -> bool:
    """True if the kernels that the table chooses on a device read a 4-bit weight repacked."""
    return not not_repacked_reason(shape, blocksize, format, dtype, device)


def short(dtype: torch.dtype) -> str:
    """The name of a dtype without its module."""
    return str(dtype).removeprefix("torch.")
