"""Peers that run on a GPU only. None of them has been run yet: what a peer refuses or gets wrong is named by the run.

unsloth   its dequantize and its product for one row, over what bitsandbytes stores
Marlin    vLLM's int4 product: evenly spaced levels, another format, and a bar for what 4 bits allow at M = 1
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from .peers import BitsAndBytes

MARLIN_GROUP = 64  # weights that share a scale, as ours do


class Unsloth(BitsAndBytes):
    """unsloth's fast_gemv for one row of x, its fast_dequantize and a matrix product for more

    Not captured: some of its versions launch on the stream that was current when it was imported.
    """

    name, ops, captured = "unsloth", frozenset({"dequantize", "forward"}), False

    def __init__(self, library: Any) -> None:
        super().__init__(import_module("bitsandbytes"))
        self._kernels = library

    def dequantize(self, stored: Any, dtype: torch.dtype) -> Tensor:
        w: Tensor = self._kernels.fast_dequantize(stored.weight.data, stored.weight.quant_state)
        return w.to(dtype)

    def linear(self, stored: Any, x: Tensor) -> Tensor:
        if len(x) == 1:
            y: Tensor = self._kernels.fast_gemv(x[None], stored.weight.data, stored.weight.quant_state)
            return y.view(1, -1)
        return nn.functional.linear(x, self.dequantize(stored, x.dtype))


@dataclass(frozen=True)
class MarlinWeight:
    """The result of `marlin_quantize`; `reference` [K, N] is the dequantized weight."""

    reference: Tensor
    codes: Tensor
    scales: Tensor
    group_index: Tensor
    order: Tensor
    workspace: Tensor


class Marlin:
    """vLLM's Marlin kernel over int4 weights in groups of 64"""

    name, ops, four_bit, captured = "marlin", frozenset({"forward"}), True, True

    def __init__(self, library: Any) -> None:
        self._test = library  # vLLM keeps the quantizer with its tests
        self._utils = import_module(library.__name__.removesuffix("_test"))

    def quantize(self, w: Tensor) -> MarlinWeight:
        parts = self._test.marlin_quantize(w.T, self._test.scalar_types.uint4b8, MARLIN_GROUP, False)
        reference, codes, scales, group_index, order = parts[:5]
        workspace = self._utils.marlin_make_workspace_new(w.device)
        return MarlinWeight(reference, codes, scales, group_index, order, workspace)

    hold = quantize

    def stored_bytes(self, stored: MarlinWeight) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (stored.codes, stored.scales))

    def dequantize(self, stored: MarlinWeight, dtype: torch.dtype) -> Tensor:
        return stored.reference.T.to(dtype)

    def linear(self, stored: MarlinWeight, x: Tensor) -> Tensor:
        k, n = stored.reference.shape
        y: Tensor = self._utils.apply_gptq_marlin_linear(
            input=x,
            weight=stored.codes,
            weight_scale=stored.scales,
            weight_zp=self._utils.marlin_make_empty_g_idx(x.device),
            g_idx=stored.group_index,
            g_idx_sort_indices=stored.order,
            workspace=stored.workspace,
            wtype=self._test.scalar_types.uint4b8,
            output_size_per_partition=n,
            input_size_per_partition=k,
            is_k_full=True,
        )
        return y
