"""Several processes that train one hat, under torchrun.

    replicas    each has the whole base; the gradient of the hat is summed once a step, in one message. It is the one of
                torch's DistributedDataParallel, which sends while it goes backward, of every batch: a hat is small
                enough to be sent at the end, and until then each process's own sum can be saved
    shards      each has a part of every tensor (FSDP2): 4-bit codes and statistics are cut as they are, gathered for
                one layer at a time, forward and again backward; the hat and its moments are cut likewise. A process
                keeps its part of a weight as soon as that has been read

Each takes rows rank, rank + size, ... of every batch, and loss and gradient are sums over all: the run is that of one
process, to the rounding of a sum.
"""

import ctypes
import math
import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from lowrank.layers.quant_linear import QuantLinear
from lowrank.model.llama import Llama

from ..adam_state import MomentShard
from ..optim import clip_gradients, local
from .heartbeat import Heartbeat
from .single import SingleProcess

PATIENCE = timedelta(minutes=10)  # with one that lives and is slow; one that is dead is found by its `Heartbeat`


class TorchrunGroup(SingleProcess):
    """The processes that torchrun has started. One that dies, or hangs, ends the others within a minute."""

    def __init__(self, shards: bool) -> None:
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.shards = shards
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, timeout=PATIENCE)
        self._heartbeat = Heartbeat(self.rank, self.size)
        self._kept: dict[nn.Module, dict[str, DTensor]] = {}

    def sum(self, values: list[float]) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return [float(value) for value in total]

    def all_gather(self, values: Sequence[float]) -> list[list[float]]:
        rows = torch.zeros(self.size, len(values), dtype=torch.float64)
        rows[self.rank] = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(rows)
        return [list(map(float, row)) for row in rows]

    def broadcast_bool(self, answer: bool) -> bool:
        return self.sum([float(answer and self.is_first)]) != [0.0]

    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> float:
        all_parameters = list(parameters)
        gradients = [local(parameter.grad) for parameter in all_parameters if parameter.grad is not None]
        if not self.shards:
            _sum_in_one_message(gradients)
            return clip_gradients(all_parameters, max_norm).item()
        square = sum((gradient.float().square().sum() for gradient in gradients), torch.zeros(()))
        (total,) = self.sum([float(square)])
        return clip_gradients(all_parameters, max_norm, norm=torch.tensor(total).sqrt().float()).item()

    def keep_shard(self, layer: nn.Module) -> None:
        """Keeps this process's part of every tensor, until `shard_model`; leaves shapes without data."""
        if not self.shards:
            return
        _as_parameters(layer)
        kept = self._kept[layer] = {}
        for name, parameter in list(layer.named_parameters(recurse=False)):
            mesh = _mesh(parameter.device.type)
            cut = distribute_tensor(parameter.detach(), mesh, [Shard(0)], src_data_rank=None)
            shard, shape, stride = cut.to_local().clone(), parameter.shape, parameter.stride()
            kept[name] = DTensor.from_local(shard, mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)
            setattr(layer, name, nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False))
        del parameter, cut
        _give_back_memory()

    def shard_model(self, model: Llama) -> None:
        """Shards the model over the processes, if the config asks for it."""
        if not self.shards:
            return
        mesh = _mesh(model.tok_embeddings.weight.device.type)
        for module in model.modules():
            _as_parameters(module)
        for block in model.layers:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh, reshard_after_forward=False)  # the head is read after the forward pass
        for layer, kept in self._kept.items():
            for name, shard in kept.items():
                setattr(layer, name, nn.Parameter(shard, requires_grad=False))
        self._kept.clear()
        register_fsdp_forward_method(model, "hidden")
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # the loss has been divided by the tokens of all
                module.set_force_sum_reduction_for_comms(True)  # gloo knows the plain sum alone

    def as_sharded(self, parameter: Tensor, value: Tensor) -> Tensor:
        """A local value, such as a moment, as a tensor sharded like its parameter."""
        if not isinstance(parameter, DTensor):
            return value
        if value.shape != parameter.to_local().shape:  # the maxima of its blocks, which all have
            return value
        mesh = _mesh(value.device.type)
        shape, stride = parameter.shape, parameter.stride()
        return DTensor.from_local(value, mesh, parameter.placements, run_check=False, shape=shape, stride=stride)

    def shard_of(self, parameter: Tensor) -> MomentShard:
        """Rows are cut as `torch.chunk` cuts them: the last process may have fewer, or none."""
        if not isinstance(parameter, DTensor):
            return MomentShard(parameter.numel())
        rows = len(parameter)
        begins = [min(rank * math.ceil(rows / self.size), rows) for rank in range(self.size)]
        columns = parameter.numel() // rows
        return MomentShard(parameter.numel(), tuple(begin * columns for begin in begins), self.rank, _all_reduce_max)

    def shard_like(self, full: Tensor, like: Tensor) -> Tensor:
        return distribute_tensor(full, like.device_mesh, like.placements) if isinstance(like, DTensor) else full

    def gather(self, tensor: Tensor) -> Tensor:
        """The full tensor, gathered from all processes."""
        full: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        return full

    def wait(self) -> None:
        dist.barrier()

    def close(self) -> None:
        dist.barrier()  # nobody counts as dead who has only come to the end first
        self._heartbeat.stop()
        dist.barrier()
        dist.destroy_process_group()

    def fail(self, error: BaseException) -> None:
        self._heartbeat.tell(error)


@cache
def _mesh(device: str) -> DeviceMesh:
    return init_device_mesh(device, (dist.get_world_size(),))


def _give_back_memory() -> None:
    """glibc's heap keeps what is freed between two tensors that stay, and finds nothing that fits there: malloc_trim(3)

    A system with another heap has no such function.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _all_reduce_max(tensor: Tensor) -> Tensor:
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor


def _sum_in_one_message(gradients: list[Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, summed in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(summed.view(gradient.shape))


def _as_parameters(layer: nn.Module) -> None:
    """Stored tensors as frozen parameters, which is what can be cut. A scalar stays with everybody."""
    if not isinstance(layer, QuantLinear):
        return
    tensors = layer.stored_weight.tensors()
    for name, tensor in list(layer.named_buffers(recurse=False)):
        if tensor.dim() > 0:
            delattr(layer, name)
            layer.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
            tensors[name] = tensor.new_empty(()).expand(tensor.shape)  # a shape, where the data would be held
    layer.stored_weight = layer.stored_weight.with_tensors(tensors)
