"""Where a stored tensor is put: in memory of its own, or where it is in its file."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels import ops
from ..kernels.weights.quantized_weight import QuantizedWeight


@dataclass(frozen=True)
class Placement:
    """A device, and whether tensors of a file stay in it: then they are views of its memory map

    Mapped, nothing is read before it is used, several processes share the pages, and the file may be replaced, but not
    written into. Without, a model has memory of its own, in pages of 2 MB where the system has them.
    """

    device: torch.device
    is_mapped: bool

    def dense(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """The numbers in a dtype: mapped where they are stored in it."""
        return tensor.to(self.device, dtype, copy=not self.is_mapped)

    def quantized(self, stored: QuantizedWeight) -> QuantizedWeight:
        """The weight with its tensors on the device."""
        copy = not self.is_mapped
        return stored.with_tensors({key: part.to(self.device, copy=copy) for key, part in stored.tensors().items()})

    def fast(self, weight: QuantizedWeight, dtype: torch.dtype) -> QuantizedWeight:
        """The weight in the layout that products with x in `dtype` read; what is mapped is left where it is."""
        return weight if self.is_mapped else ops.to_fast_layout(weight, dtype)
