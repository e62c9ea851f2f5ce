"""The launches of a step on a GPU, counted without one: on meta tensors, which have shapes and no numbers.

A launch of ours is counted where Triton would start it, one of torch's where its operator is called; what only views
memory, or makes room, launches nothing. In a captured step each is a node of the CUDA graph. A product of the vendor's
counts as one, though a second kernel may add its parts.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lowrank.kernels.cuda import nvrtc, pairs
from lowrank.kernels.dispatch import run as products
from lowrank.kernels.operators.register import BODIES
from lowrank.kernels.triton import launch as repacked_launch

# Of torch's operators, those that launch nothing.
WITHOUT_LAUNCH = {
    *(
        "view",
        "_unsafe_view",
        "reshape",
        "_reshape_alias",
        "t",
        "numpy_T",
        "transpose",
        "permute",
        "expand",
        "slice",
        "select",
    ),
    *(
        "unsqueeze",
        "squeeze",
        "alias",
        "detach",
        "as_strided",
        "split",
        "split_with_sizes",
        "unbind",
        "unfold",
        "chunk",
    ),
    *(
        "narrow",
        "diagonal",
        "empty",
        "new_empty",
        "empty_like",
        "empty_strided",
        "lift_fresh",
        "promote_types",
        "scalar_tensor",
    ),
}
KERNELS = {"_flash_attention_backward": 3}  # of torch's operators that launch more than one
GATHERS = {"embedding", "index", "index_select"}
H200 = pairs.Capacity(multiprocessors=132, shared=228 * 1024, most_shared=227 * 1024)
PRODUCTS = {"mm", "bmm", "addmm", "addmm_", "matmul", "baddbmm"}


class Launch(NamedTuple):
    """The kernel or operator, the bytes of the tensors that it takes and gives, and the multiply-adds of a product."""

    name: str
    bytes: int
    flops: int = 0


class _Recorder(TorchDispatchMode):
    def __init__(self, launches: list[Launch]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches = launches

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        if func.namespace == "lowrank":  # not its fake: what it launches
            with self:
                return BODIES[name](*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        is_empty = isinstance(result, Tensor) and not result.numel()
        if func.namespace == "aten" and name not in WITHOUT_LAUNCH and not is_empty:
            given = [tensor for tensor in (*args, result) if isinstance(tensor, Tensor)]
            if name in GATHERS:  # of the first only what is asked for
                given[0] = result
            flops = 2 * result.numel() * given[-2].shape[-2] if name in PRODUCTS else 0
            self.launches += [Launch(name, sum(tensor.nbytes for tensor in given), flops)] * KERNELS.get(name, 1)
        return result


class _Attention(torch.autograd.Function):
    """Torch's attention as a GPU has it: one kernel forward, three backward, and no matrix of scores in memory."""

    @staticmethod
    def forward(ctx: Any, launches: list[Launch], q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Tensor:
        flops = 4 * q.numel() * k.shape[-2] // (2 if is_causal else 1)
        moved = q.nbytes + k.nbytes + v.nbytes + q.nbytes
        ctx.launches, ctx.inputs = launches, (q, k, v)
        ctx.cost = moved, flops
        launches.append(Launch("attention", moved, flops))
        return torch.empty_like(q)

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> Any:
        moved, flops = ctx.cost
        ctx.launches += [Launch("attention_backward", moved // 3, 0)] * 2
        ctx.launches.append(Launch("attention_backward", 2 * moved, flops * 5 // 2))
        return None, *map(torch.empty_like, ctx.inputs), None  # of the strides of q, k, v, as flash attention has them


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """The launches inside the block, in which meta tensors count as those of a GPU."""
    from triton.runtime.jit import JITFunction

    launches: list[Launch] = []
    case = products.product_case

    def as_on_a_gpu(op: str, m: int, weight: Any, dtype: torch.dtype, device: torch.device) -> Any:
        return case(op, m, weight, dtype, torch.device("cuda", 0))

    def launched(function: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        tensors = {id(tensor): tensor for tensor in (*args, *kwargs.values()) if isinstance(tensor, Tensor)}
        launches.append(Launch(function.fn.__name__, sum(tensor.nbytes for tensor in tensors.values())))

    def compiled(device: torch.device, name: str, constants: Any) -> Any:
        def call(grid: Any, block: Any, given: list[Any], shared: int) -> None:
            tensors = {id(tensor): tensor for tensor in given if isinstance(tensor, Tensor)}
            launches.append(Launch(name, sum(tensor.nbytes for tensor in tensors.values())))

        return call

    def attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, is_causal: bool = False) -> Tensor:
        y: Tensor = _Attention.apply(launches, q, k, v, is_causal)  # type: ignore[no-untyped-call]
        return y

    with (
        mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", attention),
        mock.patch.object(JITFunction, "run", launched),
        mock.patch.object(Tensor, "is_cuda", property(lambda tensor: tensor.is_meta), create=True),
        mock.patch.object(products, "product_case", as_on_a_gpu),
        mock.patch.object(repacked_launch, "constants", _constants),
        mock.patch.object(pairs, "tables", _tables),
        mock.patch.object(pairs, "kernel", compiled),
        mock.patch.object(pairs, "capacity", lambda device: H200),
        mock.patch.object(pairs, "unavailable_reason", lambda device: nvrtc.unavailable_reason()),
        mock.patch.object(torch.cuda, "device_of", lambda tensor: nullcontext()),
        mock.patch.object(torch, "is_autocast_enabled", lambda *given: False),
        mock.patch.object(torch, "autocast", lambda *given, **options: nullcontext()),  # meta tensors have none
        _Recorder(launches),
    ):
        yield launches


def _constants(format: str, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Tensors of the shapes of `launch.constants`."""
    kinds = ((16, dtype), (10, torch.int32), (256, torch.float32))
    levels, table, nested = (torch.empty(size, dtype=kind, device="meta") for size, kind in kinds)
    return levels, table, nested


def _tables(format: str, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tensors of the shapes of `cuda.pairs.tables`."""
    return torch.empty(256, dtype=torch.int32, device="meta"), torch.empty(256, device="meta")
