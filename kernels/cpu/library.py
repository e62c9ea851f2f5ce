"""The C library of this folder: found, loaded, and told which instruction set to use.

It is called with plain pointers, so whatever it is given was checked before (`formats.check_stored`).
"""

import ctypes
import math
import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..weights.quantized_weight import Blockwise4bit, NestedAbsmax, RowwiseInt8, check_stored

ISA = "LOWRANK_CPU_ISA"  # names an instruction set to be used instead of the widest
LIBRARY = "LOWRANK_CPU_LIBRARY"  # a file to be loaded instead of the one that was built: with sanitizers, say
NO_LIBRARY = "none"  # in place of a file: plain torch, as where there was no compiler
MATRIX_UNIT, BF16_DOTS = "amx", "avx512bf16"  # instruction sets with products of bfloat16 beside those of AVX-512
BFLOAT16_SETS = (MATRIX_UNIT, BF16_DOTS)
INSTRUCTION_SETS = (MATRIX_UNIT, BF16_DOTS, "avx512", "avx2", "neon", "portable")  # of isa.c, widest first
FLOAT_PANELS_FROM = 9  # rows of x that meet W in panels in `linears`: PANELS_FROM of panel_gemm.h
HUGE_PAGE_BYTES = 2 << 20  # bytes of a large page
MIN_HUGE_PAGE_BYTES = 2 * HUGE_PAGE_BYTES  # that hold one, wherever they begin
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # enum dtype

API = Path(__file__).parent / "src" / "api.h"

_pointer, _long, _int = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "quantize": (_pointer, _int, _long, _int, _pointer, _pointer, ctypes.c_uint8, _pointer, _pointer, _int),
    "quantize_absmax": (_pointer, _long, ctypes.c_float, _int, _pointer, _pointer, _pointer, _int),
    "dequantize": (_pointer, _pointer, _int, _pointer, _long, _int),
    "dequantize_int8": (_pointer, _pointer, _int, _pointer, _long, _int),
    "linears": (_pointer, _long, _pointer, _long, _int, _int),
    "linear_backward": (_pointer, _pointer, _long, _int, _pointer, _int),
    "linear_int8_backward": (_pointer, _pointer, _long, _int, _pointer, _int),
    "linear_amx": (_pointer, _pointer, _long, _pointer, _int),
    "linear_amx_backward": (_pointer, _pointer, _long, _pointer, _int),
    "linear_bf16": (_pointer, _pointer, _long, _pointer, _int),
    "linear_bf16_backward": (_pointer, _pointer, _long, _pointer, _int),
    "attention_amx": (*(_pointer,) * 6, _int),
    "attention_bf16": (*(_pointer,) * 6, _int),
    "attention_amx_backward": (*(_pointer,) * 10, _int),
    "attention_bf16_backward": (*(_pointer,) * 10, _int),
    "rope": (_pointer, _int, _long, _long, _long, _int, _int, _pointer, _pointer, _pointer, _int),
    "swiglu": (_pointer, _pointer, _int, _long, _pointer, _int),
    "swiglu_backward": (_pointer, _pointer, _pointer, _int, _long, _pointer, _pointer, _int),
    "rms_norm": (*(_pointer,) * 3, _int, _long, _long, ctypes.c_float, *(_pointer,) * 3, _int),
    "rms_norm_backward": (*(_pointer,) * 5, _int, _long, _long, _pointer, _pointer, _int),
    "cross_entropy": (_pointer, _int, _long, _long, _pointer, _long, _int, _pointer, _int),
    "decode_attention": (_pointer, _int, *(_pointer,) * 5, _int),
    "llama_step": (_pointer, _long, _pointer, _int, _pointer, _pointer, _long, *(_pointer,) * 5, _int),
    "exact_product": (_pointer, _pointer, _long, _long, _long, _pointer, _long, _int, _int),
    "exact_function": (_int, _pointer, _long, _pointer, _int),
    "exact_sum": (_pointer, _pointer, _long, _pointer, _int),
    "exact_rms_norm": (_pointer, _pointer, _long, _long, ctypes.c_float, _pointer, _pointer, _int),
    "exact_rms_norm_backward": (*(_pointer,) * 4, _long, _long, _pointer, _int),
    "exact_rope": (_pointer, _long, _long, _long, _int, _int, *(_pointer,) * 3, _int),
    "exact_swiglu": (_pointer, _pointer, _long, _pointer, _int),
    "exact_swiglu_backward": (*(_pointer,) * 3, _long, _pointer, _pointer, _int),
    "exact_cross_entropy": (_pointer, _long, _long, _pointer, _pointer, _int),
    "exact_attention": (*(_pointer,) * 6, _int),
    "exact_attention_backward": (*(_pointer,) * 9, _int),
    "exact_adamw": (_pointer, _pointer, _long, *(_pointer,) * 3, _int),
    "prefer_huge_pages": (_pointer, _long),
    "keep_freed_memory": (_int,),
}
_WITHOUT_STATUS = ("quantize_absmax", "dequantize", "dequantize_int8", "prefer_huge_pages", "keep_freed_memory")


class FourBit(ctypes.Structure):
    """`blockwise_4bit` of api.h."""

    _fields_ = (
        ("codes", _pointer),
        ("absmax", _pointer),
        ("absmax_codes", _pointer),
        ("nested_absmax", _pointer),
        ("offset", _pointer),
        ("levels", _pointer),
        ("dynamic8", _pointer),
        ("rows", _long),
        ("columns", _long),
        ("blocksize", ctypes.c_int32),
        ("nested_blocksize", ctypes.c_int32),
    )


class Int8(ctypes.Structure):
    """`rowwise_int8` of api.h."""

    _fields_ = (("codes", _pointer), ("scale", _pointer), ("rows", _long), ("columns", _long))


class Dense(ctypes.Structure):
    """`dense` of api.h."""

    _fields_ = (("weights", _pointer), ("dtype", _int), ("rows", _long), ("columns", _long))


class LinearPart(ctypes.Structure):
    """`linear_part` of api.h."""

    _fields_ = (
        ("w", _pointer),
        ("w_int8", _pointer),
        ("w_dense", _pointer),
        ("lora_a", _pointer),
        ("lora_b", _pointer),
        ("rank", _long),
        ("scaling", ctypes.c_float),
        ("y", _pointer),
        ("spans", _pointer),
        ("span_count", _long),
    )


class Submatrix(ctypes.Structure):
    """`submatrix` of api.h."""

    _fields_ = (("row", _long), ("rows", _long), ("column", _long), ("columns", _long))


def file() -> Path | None:
    """The compiled library, if it was built when the package was installed; or one that the environment names."""
    if named := os.environ.get(LIBRARY):
        return None if named == NO_LIBRARY else Path(named)
    return next(iter(sorted(Path(__file__).parent.glob("_native*.so"))), None)


@cache
def unavailable_reason() -> str:
    """Why there is no library; nothing if there is one."""
    if file():
        return ""
    if os.environ.get(LIBRARY) == NO_LIBRARY:
        return f"{LIBRARY} is {NO_LIBRARY!r}"
    return "the C library was not built: there was no compiler when lowrank was installed"


@cache
def library() -> ctypes.CDLL:
    """The library, with the instruction set chosen.

    Raises ValueError for a file that is no library, or one of other sources, and for an instruction set that this
    processor does not have.
    """
    path = file()
    assert path, unavailable_reason()
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise ValueError(f"{LIBRARY} or the installed library cannot be loaded: {error}") from None
    if not _is_of_these_sources(loaded):
        raise ValueError(
            f"{path} was built from other sources than those in {API.parent}: run `pip install -e .` again"
        )
    loaded.lowrank_instruction_set.restype = loaded.lowrank_processor.restype = ctypes.c_char_p
    name = os.environ.get(ISA)
    if loaded.lowrank_choose(name.encode() if name else None):
        raise ValueError(
            f"{ISA} must name an instruction set of this processor ({', '.join(INSTRUCTION_SETS)}), got {name!r}"
        )
    for name, signature in _SIGNATURES.items():
        function = getattr(loaded, f"lowrank_{name}")
        function.argtypes = signature
        function.restype = None if name in _WITHOUT_STATUS else _int
    return loaded


def _is_of_these_sources(loaded: ctypes.CDLL) -> bool:
    """True if a library was compiled with the api.h that is here: by another, structs and arguments are others."""
    if not hasattr(loaded, "lowrank_api_header"):
        return False
    loaded.lowrank_api_header.restype = ctypes.c_char_p
    return not API.exists() or loaded.lowrank_api_header() == API.read_bytes()


def instruction_set() -> str:
    """The name of the instruction set in use."""
    name: bytes = library().lowrank_instruction_set()
    return name.decode()


def has_bfloat16_products() -> bool:
    """True if the instruction set in use has products of bfloat16: a prompt then takes half the time of float32's."""
    return not unavailable_reason() and instruction_set() in BFLOAT16_SETS


def usable_sets() -> tuple[str, ...]:
    """The instruction sets that the library was compiled for and this processor has, widest first."""
    choose, used = library().lowrank_choose, instruction_set()
    found = tuple(name for name in INSTRUCTION_SETS if choose(name.encode()) == 0)
    choose(used.encode())  # trying one is choosing it
    return found


def processor() -> str:
    """Vendor and family ("AuthenticAMD 25") where the processor names them, or nothing."""
    name: bytes = library().lowrank_processor()
    return name.decode()


def call(function: str, *arguments: Any) -> int:
    """lowrank_FUNCTION(*arguments, threads).  Raises MemoryError where it found no memory."""
    status: int | None = getattr(library(), f"lowrank_{function}")(*arguments, torch.get_num_threads())
    if status == -1:
        raise MemoryError(f"lowrank_{function}: no memory for its rows")
    return status or 0


def prefer_huge_pages(tensors: Iterable[Tensor]) -> None:
    """Asks for pages of 2 MB under tensors on the CPU that fill some, together with what is between; changes no byte"""
    stretches: list[tuple[int, int]] = []  # the first byte, and the one behind the last
    for begin, end in sorted((tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes) for tensor in tensors):
        if stretches and begin - stretches[-1][1] < HUGE_PAGE_BYTES:
            begin, end = stretches[-1][0], max(end, stretches.pop()[1])
        stretches.append((begin, end))
    for begin, end in stretches:
        if end - begin >= MIN_HUGE_PAGE_BYTES:
            library().lowrank_prefer_huge_pages(begin, end - begin)


def keep_freed_memory(keep: bool) -> None:
    """Keeps freed memory for later allocations, which then fault in no pages; or returns it to the system."""
    if not unavailable_reason():
        library().lowrank_keep_freed_memory(keep)


class _Kept:
    """A description, and the tensors and addresses that it is of. It is not copied with the weight."""

    def __init__(
        self,
        tensors: Sequence[Tensor] = (),
        places: Sequence[int] = (),
        described: ctypes.Structure | None = None,
    ) -> None:
        self.tensors, self.places, self.described = tensors, places, described

    def __reduce__(self) -> tuple[type["_Kept"], tuple[()]]:
        return _Kept, ()


def describe(weight: Blockwise4bit | RowwiseInt8) -> ctypes.Structure:
    """The weight as the library takes it.  Raises ValueError unless its tensors are what its shape asks for.

    Kept with the weight for as long as its tensors stay where they are.
    """
    kept: _Kept | None = weight.__dict__.get("_kept")
    if kept is None or kept.described is None or kept.places != list(map(Tensor.data_ptr, kept.tensors)):
        check_stored(weight)
        tensors = list(weight.tensors().values())
        kept = _Kept(tensors, list(map(Tensor.data_ptr, tensors)), _described(weight))
        weight.__dict__["_kept"] = kept
    assert kept.described is not None
    return kept.described


def _described(weight: Blockwise4bit | RowwiseInt8) -> ctypes.Structure:
    rows, columns = math.prod(weight.shape[:-1]), weight.shape[-1]
    if isinstance(weight, RowwiseInt8):
        return Int8(weight.codes.data_ptr(), weight.scale.data_ptr(), rows, columns)
    levels = weight.codebook
    described = FourBit(
        codes=weight.codes.data_ptr(),
        levels=levels.data_ptr(),
        rows=rows,
        columns=columns,
        blocksize=weight.blocksize,
        nested_blocksize=1,
    )
    described.alive = [levels]  # what it points to lives as long as it does
    if isinstance(weight.absmax, NestedAbsmax):
        nested, levels8 = weight.absmax, weight.absmax.codebook
        described.alive.append(levels8)
        described.dynamic8 = levels8.data_ptr()
        described.absmax_codes = nested.codes.data_ptr()
        described.nested_absmax = nested.nested_absmax.data_ptr()
        described.offset = nested.offset.data_ptr()
        described.nested_blocksize = nested.nested_blocksize
    else:
        described.absmax = weight.absmax.data_ptr()
    return described
