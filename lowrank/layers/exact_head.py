"""The output head for a few rows, each to the byte what it gives alone: T rows, D model dim, V vocabulary."""

import torch
from torch import Tensor

from ..kernels.cpu.decode_step import SAME_BITS_UP_TO
from ..kernels.cpu.linear import linears
from ..kernels.dispatch import run
from ..model.llama import Llama
from .fused_projections import lora_plan
from .quant_linear import CastLinear, QuantHead, QuantLinear


def logits_of_rows(model: Llama, hidden: Tensor) -> Tensor:
    """`Llama.logits` of each row by itself;  [T, D] -> float32 [T, V]

    Products of up to `SAME_BITS_UP_TO` rows, where the library is what computes it for one: they have the bits of one
    then. A head of any other kind is asked once a row, since a vendor's product rounds in another order for other
    shapes.
    """
    head = model.output
    if type(head) in (CastLinear, QuantHead, QuantLinear) and "forward" not in vars(head):
        plan = lora_plan(hidden, [head])
        if plan is not None and run.can_run_in_one_call(hidden[:1], plan):
            return torch.cat([linears(rows, plan)[0].float() for rows in hidden.split(SAME_BITS_UP_TO)])
    return torch.cat([model.logits(row) for row in hidden.split(1)])
