"""A folder of weights -> a frozen Llama whose block linears are in the number format asked for."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from ..kernels import ops
from ..kernels.cpu import library
from ..kernels.llama_ops.cpu import CPU_OPS
from ..kernels.llama_ops.cuda import CUDA_OPS
from ..kernels.weights.quantized_weight import DENSE_DTYPES, QUANTIZED_NAMES
from ..layers.cpu_decode import FusedBlocks
from ..layers.gpu_decode import GpuBlocks
from ..layers.quant_linear import CastLinear, QuantHead, QuantLinear
from ..model.checkpoint import Parameter, QuantizedParts, Stored
from ..model.llama import TORCH_OPS, Llama, Ops
from ..model.meta_device import meta_device
from ..model.param_names import is_block_linear
from ..model.tokenizer import Tokenizer
from ..progress import ProgressBar
from .chunked_quantize import quantize_chunks
from .embedded import base_folder
from .fingerprint import Fingerprint, recorded_fingerprint
from .head import check_head, dense_numbers, head_layer
from .open_base import open_base, open_tokenizer
from .placement import Placement
from .stored_weight import from_stored

WEIGHTS = (*DENSE_DTYPES, *QUANTIZED_NAMES)
DEFAULT_WEIGHTS = "nf4-dq"
DEQUANT = "dequant:"


def load(
    path: str | Path,
    weights: str | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    *,
    head: str | None = None,
    progress: bool = False,
    keep: Callable[[nn.Module], None] | None = None,
    force: bool = False,
) -> Llama:
    """A frozen base, ready to compute in `dtype` (left out: bfloat16 on a GPU, float32 on a CPU).

    path     a Meta folder, a Hugging Face folder, one quantized by bitsandbytes, or by `lowrank quantize`;
             "embedded" is the small base that comes with this package
    weights  of the seven linears of each block: "fp32", "bf16", "fp16", "int8", "nf4", "nf4-dq", "fp4", "fp4-dq", or
             "dequant:" and one of the last five: full-precision weights that went through that format.
             Left out: "nf4-dq" for a full-precision folder, as stored for a quantized one (which can only be
             dequantized, and whose dense linears stay as they are). Embedding and norms are in `dtype`.
    head     of the output head: "bf16", "int8" (a scale a row) or "nf4"; left out: as stored if that is quantized,
             else in `dtype`. A head tied to the embedding becomes one of its own; it is not quantized to "nf4"
    keep     is called with each linear of a block once it is loaded, and may drop a part of it
    force    takes NaN and infinity in what is not quantized, with a warning that names the tensor: to look into a base
             that is broken
    Tensors are read, and quantized, one at a time: beside what is finished, memory holds at most two of the largest.
    Raises ValueError naming file and key for whatever does not fit; see `model.checkpoint` and `model.config`.
    """
    checkpoint = open_base(base_folder(path))
    wanted = _Wanted.parse(weights, checkpoint.is_quantized)
    check_head(head, checkpoint.config.tie_embeddings)
    device = find_device(device)
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    if device.type == "cpu" and wanted.is_quantized and library.unavailable_reason():
        _warn_plain_torch()
    config = checkpoint.config if head is None else replace(checkpoint.config, tie_embeddings=False)
    with meta_device():
        model = Llama(config, ops=_operations(device, dtype))
    if model.norm.ops is CPU_OPS:
        model.fused_blocks = FusedBlocks()
    elif model.norm.ops is CUDA_OPS:
        model.fused_blocks = GpuBlocks()
    fingerprint, recorded = Fingerprint(), recorded_fingerprint(checkpoint)
    shapes = checkpoint.config.parameter_shapes()
    formats = set()
    # Files of our own are replaced whole and never written into, and their numbers were looked at when they were
    # written: on a CPU they are mapped, and nothing is read before it is used.
    place = Placement(device, is_mapped=bool(recorded) and device.type == "cpu")
    parameters = checkpoint.parameters(check_finite=not recorded, force=force)
    with bytes_bar("load", parameters, progress) as bar:
        for parameter in parameters:
            name, value = parameter.name, parameter.read()
            if is_block_linear(name):
                module = wanted.linear(value, shapes[name], dtype, place, f"{checkpoint.folder}: {name}")
                model.set_submodule(name.removesuffix(".weight"), module)
                formats.add(module.format)
                if keep is not None:
                    keep(module)
                del module
            elif name == "output.weight":
                if not recorded:
                    fingerprint.add(name, dense_numbers(value, f"{checkpoint.folder}: {name}"))
                model.set_submodule("output", head_layer(value, head, dtype, place, f"{checkpoint.folder}: {name}"))
            else:
                assert isinstance(value, Tensor), name
                if not recorded:
                    fingerprint.add(name, value)
                if name == "tok_embeddings.weight" and checkpoint.config.tie_embeddings and head is not None:
                    model.set_submodule("output", head_layer(value, head, dtype, place, f"{checkpoint.folder}: {name}"))
                owner = model.get_submodule(name.removesuffix(".weight"))
                owner.weight = nn.Parameter(place.dense(value, dtype))
            del value  # before the next is read: two would be in memory otherwise
            bar.update(parameter.nbytes)
    if config.tie_embeddings:
        model.output = CastLinear(model.tok_embeddings.weight.detach())
        model.output.weight = model.tok_embeddings.weight
    if device.type == "cpu" and not place.is_mapped and not library.unavailable_reason():
        small = (tensor for tensor in model.layers.buffers() if tensor.nbytes < library.MIN_HUGE_PAGE_BYTES)
        library.prefer_huge_pages([*model.output.parameters(), *model.output.buffers(), *small])
    model.name_or_path = str(path)
    model.source = {
        "weights": weights or "+".join(sorted(formats)),
        "fingerprint": fingerprint.hexdigest(checkpoint),
    }
    output = model.get_submodule("output")
    if isinstance(output, QuantHead):
        head = output.format
    if head is not None:
        model.source["head"] = head
    return model.requires_grad_(False).eval()


def _operations(device: torch.device, dtype: torch.dtype) -> Ops:
    """Triton's on a GPU; on a CPU those in C, if they were compiled and take the dtype."""
    if device.type == "cuda":
        return CUDA_OPS
    return (
        CPU_OPS if device.type == "cpu" and dtype in library.DTYPES and not library.unavailable_reason() else TORCH_OPS
    )


@cache
def _warn_plain_torch() -> None:
    """Once in a process: the weights are right, and slow."""
    warnings.warn(f"4-bit and 8-bit weights in plain torch: {library.unavailable_reason()}", stacklevel=3)


def bytes_bar(
    what: str, parameters: Sequence[Parameter], shown: bool, pending: Sequence[Parameter] | None = None
) -> ProgressBar:
    """A bar over the bytes that are read, with their rate; pending: those that an earlier call has not done."""
    total = sum(parameter.nbytes for parameter in parameters)
    left = total if pending is None else sum(parameter.nbytes for parameter in pending)
    return ProgressBar(desc=what, total=total, initial=total - left, unit="B", unit_scale=True, disable=not shown)


def find_device(name: str | torch.device) -> torch.device:
    """The device of a name.  Raises ValueError for one that this machine, or this torch, does not have."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r}: {str(error).splitlines()[0]}") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu, cuda or cuda:NUMBER, got {str(name)!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {str(name)!r}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices"
        )
    return device


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a folder of weights, or of "embedded": see `Tokenizer`.

    Rows of the embedding that have no piece (padding to a round number, say) are told, and `generate` draws none.
    Raises ValueError if there is no tokenizer, or if a piece that a text may be cut into has no row.
    """
    folder = base_folder(path)
    tokenizer = open_tokenizer(folder)
    rows = open_base(folder).config.vocab_size
    if without_row := tokenizer.drop_special(rows):
        warnings.warn(
            f"{tokenizer.path}: {', '.join(without_row)}: no row of the {rows} of the embedding, so not used",
            stacklevel=2,
        )
    if tokenizer.vocab_size > rows:
        raise ValueError(f"{tokenizer.path}: has {tokenizer.vocab_size} pieces, the embedding has {rows} rows")
    if empty := tokenizer.rows_without_piece(rows):
        warnings.warn(f"{tokenizer.path}: has no piece for {_spans(empty)} of the embedding: never drawn", stacklevel=2)
    return tokenizer


def _spans(rows: Sequence[int]) -> str:
    """ "rows 3, 8 to 11": ascending numbers, those that follow each other as spans"""
    spans: list[list[int]] = []
    for row in rows:
        if spans and row == spans[-1][1] + 1:
            spans[-1][1] = row
        else:
            spans.append([row, row])
    named = [str(first) if first == last else f"{first} to {last}" for first, last in spans]
    return f"row{'s' * (len(rows) > 1)} {', '.join(named)}"


@dataclass(frozen=True)
class _Wanted:
    """`weights=` for a block linear: a format (None: as stored), and `dequantized` if it is dequantized again.

    keeps_dense  linears that are stored dense stay as they are: those that a quantized folder left out
    """

    format: str | None
    dequantized: bool
    keeps_dense: bool

    @property
    def is_quantized(self) -> bool:
        """True if weights are 4 or 8 bits in memory."""
        return not self.dequantized and (self.format is None or self.format in QUANTIZED_NAMES)

    @classmethod
    def parse(cls, weights: str | None, stored_quantized: bool) -> Self:
        if weights is None:
            return cls(None if stored_quantized else DEFAULT_WEIGHTS, False, stored_quantized)
        format = weights.removeprefix(DEQUANT)
        if format not in (QUANTIZED_NAMES if weights.startswith(DEQUANT) else WEIGHTS):
            raise ValueError(f"weights must be one of {', '.join(WEIGHTS)} or {DEQUANT}FORMAT, got {weights!r}")
        return cls(format, weights.startswith(DEQUANT), stored_quantized)

    def linear(
        self, value: Stored, shape: tuple[int, ...], dtype: torch.dtype, place: Placement, where: str
    ) -> QuantLinear | CastLinear:
        """The layer for one stored weight."""
        if isinstance(value, QuantizedParts):
            stored = from_stored(value.tensors, where)
            if self.format not in (None, stored.name):
                raise ValueError(
                    f"{where}: stored as {stored.name}: weights must be {stored.name!r} or '{DEQUANT}{stored.name}', "
                    f"got {self.format!r}"
                )
            if tuple(stored.shape) != shape:
                raise ValueError(f"{where} must have shape {list(shape)}, got {list(stored.shape)}")
            quantized = place.quantized(stored)
        elif self.keeps_dense or self.format in DENSE_DTYPES:
            return CastLinear(place.dense(value, DENSE_DTYPES.get(self.format or "", value.dtype)))
        else:
            assert self.format is not None, where
            quantized = quantize_chunks(value, self.format, place.device, where)
        if self.dequantized:
            return CastLinear(ops.dequantize(quantized, dtype))
        return QuantLinear(place.fast(quantized, dtype))
