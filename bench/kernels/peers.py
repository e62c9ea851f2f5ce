"""Who is compared: ours and the peers, behind one small protocol.

A provider turns a weight [N, K] into what it stores (`stored`), and computes with that. Each is given its peer's public
functions as its users call them; dX is the gradient that its own autograd returns.
"""

import ctypes
import math
from collections.abc import Collection
from importlib import import_module, metadata
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lowrank.kernels import ops
from lowrank.kernels.dispatch import run
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES, stored_bytes

from .plan import OPS

FORMAT = "nf4-dq"  # what every 4-bit provider is asked for: NF4, blocks of 64, block maxima in 8 bits


class Provider(Protocol):
    """One way to hold a weight and to compute with it."""

    name: str
    ops: frozenset[str]
    four_bit: bool
    captured: bool  # whether its calls may be captured in a CUDA graph

    def quantize(self, w: Tensor) -> Any:
        """The weight [N, K] in this provider's format."""

    def hold(self, w: Tensor) -> Any:
        """The same, laid out as this provider computes with it."""

    def stored_bytes(self, stored: Any) -> int:
        """Bytes of the stored weight."""

    def dequantize(self, stored: Any, dtype: torch.dtype) -> Tensor:
        """W [N, K] in `dtype`."""

    def dequantize_into(self, stored: Any, out: Tensor) -> None:
        """Writes W over `out` [N, K], in its dtype; only for a provider with this op."""

    def linear(self, stored: Any, x: Tensor) -> Tensor:
        """x [M, K] -> x W^T [M, N]; with a gradient where x asks for one."""


class Ours:
    """`lowrank.kernels.ops`"""

    name, ops, four_bit, captured = "ours", frozenset(OPS), True, True

    def quantize(self, w: Tensor) -> Any:
        return ops.quantize(w, FORMAT)

    def hold(self, w: Tensor) -> Any:
        return ops.to_fast_layout(self.quantize(w), w.dtype)

    def stored_bytes(self, stored: Any) -> int:
        return stored_bytes(stored)

    def dequantize(self, stored: Any, dtype: torch.dtype) -> Tensor:
        return ops.dequantize(stored, dtype)

    def dequantize_into(self, stored: Any, out: Tensor) -> None:
        run.dequantize(stored, out.dtype, out)

    def linear(self, stored: Any, x: Tensor) -> Tensor:
        return ops.linear(x, stored)


class Dense:
    """The full-precision weight in the dtype of x, and the vendor's matrix product (cuBLAS on a GPU)."""

    name, ops, four_bit, captured = "dense", frozenset({"forward", "dX"}), False, True

    def quantize(self, w: Tensor) -> Any:
        return w

    hold = quantize

    def stored_bytes(self, stored: Tensor) -> int:
        return stored.numel() * stored.element_size()

    def dequantize(self, stored: Tensor, dtype: torch.dtype) -> Tensor:
        return stored.to(dtype)

    def dequantize_into(self, stored: Tensor, out: Tensor) -> None:
        out.copy_(stored)

    def linear(self, stored: Tensor, x: Tensor) -> Tensor:
        return nn.functional.linear(x, stored)


class BitsAndBytes:
    """bitsandbytes' Linear4bit: its fused kernels where its own choice takes them, also on a CPU with AVX512-BF16

    On a CPU the layer repacks its weight at the first call without a gradient, and rounds the block maxima to bfloat16.
    """

    name, ops, four_bit, captured = "bitsandbytes", frozenset(OPS), True, True

    def __init__(self, library: Any) -> None:
        self._library = library

    def quantize(self, w: Tensor) -> Any:
        layer = self._library.nn.Linear4bit(w.shape[1], w.shape[0], bias=False, device="meta")
        # Its parameter quantizes when it is moved to a device, also to the one that it is on.
        layer.weight = self._library.nn.Params4bit(
            w, requires_grad=False, quant_type="nf4", blocksize=64, compress_statistics=True
        ).to(w.device)
        return layer.eval()

    hold = quantize

    def stored_bytes(self, stored: Any) -> int:
        state = stored.weight.quant_state
        statistics = [state.absmax, *([state.state2.absmax, state.offset] if state.nested else [])]
        return sum(tensor.numel() * tensor.element_size() for tensor in (stored.weight, *statistics))

    def dequantize(self, stored: Any, dtype: torch.dtype) -> Tensor:
        w: Tensor = self._library.functional.dequantize_4bit(stored.weight.data, stored.weight.quant_state)
        return w.to(dtype)

    def dequantize_into(self, stored: Any, out: Tensor) -> None:
        """By its C function: on a CPU its `dequantize_4bit` takes no `out`. Maxima come as they do there."""
        state = stored.weight.quant_state
        absmax = self._library.functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
        dtype = next(name for name, dtype in DENSE_DTYPES.items() if dtype == out.dtype)
        function = getattr(self._library.cextension.lib, f"cdequantize_blockwise_cpu_nf4_{dtype}")
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (stored.weight.data, absmax, out)]
        function(*pointers, *map(ctypes.c_longlong, (state.blocksize, *out.shape)))

    def linear(self, stored: Any, x: Tensor) -> Tensor:
        y: Tensor = stored(x)
        return y


class BitsAndBytesDequantize(BitsAndBytes):
    """bitsandbytes' dequantize, then a matrix product: what its backward pass does at every M."""

    name, ops = "bitsandbytes-dequantize", frozenset({"forward"})

    def linear(self, stored: Any, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.dequantize(stored, x.dtype))


class TorchAO:
    """torchao's NF4Tensor, whose block maxima are in 8 bits too."""

    name, ops, four_bit, captured = "torchao", frozenset({"quantize", "dequantize", "forward", "dX"}), True, True

    def __init__(self, library: Any) -> None:
        self._library = library

    def quantize(self, w: Tensor) -> Any:
        return self._library.to_nf4(w, 64, 256)

    hold = quantize

    def stored_bytes(self, stored: Any) -> int:
        names = ("quantized_data", "quantized_scalers", "quantization_factor", "scaler_mean")
        return sum(tensor.numel() * tensor.element_size() for tensor in (getattr(stored, name) for name in names))

    def dequantize(self, stored: Any, dtype: torch.dtype) -> Tensor:
        w: Tensor = stored.get_original_weight()
        return w.to(dtype)

    def linear(self, stored: Any, x: Tensor) -> Tensor:
        return nn.functional.linear(x, stored)


# Distribution, the module to import, the oldest version that counts, and what is made of it: a class of this room or,
# by name, of `gpu_peers`.
MARLIN = "vllm.model_executor.layers.quantization.utils.marlin_utils_test"
INSTALLABLE: dict[str, tuple[str, tuple[int, int], tuple[type[Any] | str, ...]]] = {
    "bitsandbytes": ("bitsandbytes", (0, 50), (BitsAndBytes, BitsAndBytesDequantize)),
    "torchao": ("torchao.quantization", (0, 18), (TorchAO,)),
    "unsloth": ("unsloth.kernels.utils", (2025, 1), ("Unsloth",)),
    "vllm": (MARLIN, (0, 10), ("Marlin",)),
}
# Peers that this bench knows of and does not time, with the reason.
NOT_TIMED = {
    "liger_kernel": "it has no 4-bit product; python -m lowrank.bench.kernels.llama_ops times its fused operations"
}
PEERS = ("dense", *INSTALLABLE, *NOT_TIMED)


def find(wanted: Collection[str]) -> tuple[list[Provider], dict[str, str]]:
    """Ours and those of the wanted peers that are here, and why each other one is not.

    Raises ValueError for a name that is none of `PEERS`.
    """
    if unknown := sorted(set(wanted) - set(PEERS)):
        raise ValueError(f"--peers: {unknown[0]!r} is none of {', '.join(PEERS)}")
    present: list[Provider] = [Ours()]
    absent = {}
    for peer in PEERS:
        if peer not in wanted:
            continue
        if peer == "dense":
            present.append(Dense())
        elif reason := _unavailable_reason(peer):
            absent[peer] = reason
        else:
            module, _, classes = INSTALLABLE[peer]
            library = import_module(module)
            present += [_class(made)(library) for made in classes]
    return present, absent


def _class(made: type[Any] | str) -> Any:
    return getattr(import_module(".gpu_peers", __package__), made) if isinstance(made, str) else made


def _unavailable_reason(peer: str) -> str | None:
    """Why a peer cannot be timed; None if it can."""
    try:
        version = metadata.version(peer)
    except metadata.PackageNotFoundError:
        return "not installed"
    if peer in NOT_TIMED:
        return f"{version} is installed, but {NOT_TIMED[peer]}"
    module, oldest, _ = INSTALLABLE[peer]
    if tuple(int(part) for part in version.split(".")[:2]) < oldest:
        return f"{version} is installed, but at least {'.'.join(map(str, oldest))} is needed"
    try:
        import_module(module)
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # one that finds no GPU raises what it likes
        return f"{version} is installed, but does not import: {' '.join(str(error).split())[:200]}"
    return None


def samples_apart(w: Tensor, other: Tensor) -> float:
    """The root mean square of the difference of two weights."""
    return math.sqrt((w.float() - other.float()).square().mean().item())
