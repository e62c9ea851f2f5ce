"""Multiplications and memory in use, by which a run is measured against its machine.

P weights of the linears of all blocks, p those of the hat, V vocabulary, D model dim, A channels of all query heads,
L layers, T tokens of a row.
"""

import resource
import sys
from pathlib import Path

import torch

from lowrank.adapters.accounting import adapter_parameters, linear_parameters
from lowrank.model.config import ModelConfig

from ..config import TrainConfig
from ..config_tables import Recompute


def training_flops(model: ModelConfig, config: TrainConfig, positions: int, pairs: int, supervised: int) -> float:
    """forward 2 P + 2 p a position, 2 L A a causal pair, 2 V D a supervised token; backward as much for dX, and 2 p

        4 P + 6 p a position        6 L A a pair, T^2 / 2 of them in a row        4 V D a supervised token

    The frozen weights have no gradient, so their backward pass is one product, not two; attention's is two for one.
    Everything recomputed is forward work again, and so is the reference of a preference loss.
    positions, pairs (the sum of T^2 over rows), supervised: of a step,
    or of as many as are wanted.
    """
    linears, attention = linear_parameters(model), 2 * model.n_layers * model.attention_dim
    adapter = adapter_parameters(model, config.adapter.rank, config.adapter.targets, dora=config.adapter.dora)
    reference = bool(config.preference.loss)
    again = (config.run.recompute == "full") + reference
    adapter_again = again - (reference and not config.adapter.from_)
    by_position = (2 + again) * 2 * linears + (3 + adapter_again) * 2 * adapter
    by_pair = (3 + again) * attention
    head = (2 + reference) * 2 * model.vocab_size * model.dim
    return float(positions * by_position + pairs * by_pair + supervised * head)


def peak_bytes(device: torch.device) -> int:
    """The most memory so far: of the GPU's allocator, or the resident set of this process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")


def resident_bytes() -> int:
    """The resident set of this process now, in bytes."""
    return _resident("VmRSS")


def runtime_bytes(recompute: Recompute) -> int:
    """The resident set of this process before a base is loaded, in bytes, with all that a run imports."""
    if recompute == "full":
        import torch._dynamo  # noqa: F401  (as the first call of torch.utils.checkpoint does)
    return resident_bytes()


def _resident(key: str) -> int:
    status = Path("/proc/self/status")
    if not status.exists():  # elsewhere than on Linux the system tells the peak alone
        unit = 1 if sys.platform == "darwin" else 1024  # bytes in macOS's getrusage(2), kilobytes in others'
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    line = next(line for line in status.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024
