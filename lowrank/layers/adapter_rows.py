"""Rows of the embedding, or of the output head, that an adapter brings in place of the base's.

V rows of the base, n rows of an adapter, D model dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.lora.lora_linear import autocast_input, lora_linears
from ..kernels.weights.linear_with_adapter import LinearWithAdapter
from .adapter_selection import SelectingModule, effective, selection_of
from .quant_linear import QuantHead


class AdapterRows(SelectingModule):
    """An embedding, tokens -> [*, D], or an output head, [*, D] -> logits, whose rows an adapter may replace

    Of each adapter: `rows` [n, D], and in `index` which rows of the base they stand for, int64 [n], or None for all of
    them, which may then be more than V. One adapter at a time has a say: the base's own rows do not mix with others.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        assert isinstance(base, nn.Embedding | nn.Linear | QuantHead)
        self.base = base
        self.rows = nn.ParameterDict()
        self.index: dict[str, Tensor | None] = {}

    def add(self, name: str, rows: Tensor, index: Tensor | None) -> None:
        """Adds an adapter's rows [n, D], frozen, in the dtype of the base's."""
        weight = self.base.weight
        self.rows[name] = nn.Parameter(rows.to(weight), requires_grad=False)
        self.index[name] = None if index is None else index.to(weight.device)

    def drop(self, name: str) -> None:
        """Removes an adapter's rows."""
        del self.rows[name], self.index[name]

    @property
    def weight(self) -> Tensor:
        """The rows that this call uses: the base's, those of the adapter, or the base's with some of them replaced."""
        name = self._active()
        if name is None:
            return self.base.weight
        index = self.index[name]
        return self.rows[name] if index is None else self.base.weight.index_copy(0, index, self.rows[name])

    def forward(self, x: Tensor) -> Tensor:
        name = self._active()
        if name is None:
            y: Tensor = self.base(x)
            return y
        rows, index = self.rows[name], self.index[name]
        if index is None:
            return self._of(x, rows)
        bare: Tensor = self.base(x)
        if not isinstance(self.base, nn.Embedding):
            return bare.index_copy(-1, index, self._of(x, rows))
        place = torch.full((len(self.base.weight),), -1, device=x.device)
        place[index] = torch.arange(len(index), device=x.device)
        at = place[x]
        return torch.where((at >= 0)[..., None], rows[at.clamp(min=0)], bare)

    def _of(self, x: Tensor, rows: Tensor) -> Tensor:
        if isinstance(self.base, nn.Embedding):
            return F.embedding(x, rows)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return F.linear(x, rows.to(autocast_input(x).dtype))
        return lora_linears(x, [LinearWithAdapter(rows)])[0]

    def _active(self) -> str | None:
        selection = effective(selection_of(self), self.rows.keys())
        if not selection:
            return None
        if isinstance(selection, tuple) and len(selection) == 1 and selection[0][1] == 1.0:
            return selection[0][0]
        raise ValueError(f"rows of an embedding or head are not mixed: one adapter, at weight 1, got {selection}")
