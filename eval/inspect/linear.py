"""The microscope: one block of one weight as it is stored, and one number of the forward pass, taken apart.

N out_features, K in_features, r rank, T tokens; R the row (an output channel), t the token.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowrank.adapters import layer_configs, use_adapter
from lowrank.adapters.files import load_adapter
from lowrank.checkpoints.load import load, load_tokenizer
from lowrank.checkpoints.open_base import open_base
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.quantized_weight import QUANTIZED_NAMES, QuantizedWeight
from lowrank.layers.lora import LoRALinear
from lowrank.layers.quant_linear import QuantLinear
from lowrank.model.checkpoint import QuantizedParts
from lowrank.model.config import ModelConfig
from lowrank.model.llama import Llama
from lowrank.model.param_names import LINEARS, to_meta

from .block import BLOCK, Block, read_block, row_name

NAME = "hat"
UNIT = torch.finfo(torch.float32).eps / 2  # u: a float32 operation is right to one part in 1 / u


@dataclass(frozen=True)
class AdapterPart:
    """(x A) B in row R: inner = x A [r], outer = B[:, R] [r], value = scaling * inner . outer as the layer has it"""

    folder: str
    rank: int
    scaling: float
    inner: tuple[float, ...]
    outer: tuple[float, ...]
    value: float


@dataclass(frozen=True)
class Product:
    """y[t, R] taken apart. All but `by_hand` and what follows it are float32, as the model computes them.

    base        (x Q(W)^T)[R]
    total       base + the hat's part
    forward     what the model's own forward pass put out there
    block       what the weights of the block add to it: sum of x[k] Q(W)[R, k] over its columns in row R
    by_hand     the same as `forward` in float64, from x and the stored numbers
    bound       how far float32 may be from `by_hand`: 2 (K + r + 4) u (sum |x w| + the hat's the same)
    unquantized the base's part with W as it was before it was quantized, None where that is not there
    """

    token: int
    piece: str
    base: float
    hat: AdapterPart | None
    total: float
    forward: float
    block: float
    by_hand: float
    bound: float
    unquantized: float | None

    @property
    def is_exact(self) -> bool:
        """True if the parts add up to the output of the forward pass, bit for bit."""
        return self.total == self.forward

    @property
    def is_within(self) -> bool:
        """True if the forward pass is within the float32 error bound of float64."""
        return abs(self.forward - self.by_hand) <= self.bound


@dataclass(frozen=True)
class LinearXray:
    """One block of one linear, and one number that comes out of it."""

    base: str
    path: str
    shape: tuple[int, int]
    row: int
    where: str
    text: str
    pieces: tuple[str, ...]
    x: tuple[float, ...]
    block: Block
    product: Product


def inspect_linear(
    base: str | Path,
    path: str,
    *,
    row: int,
    block: int,
    text: str,
    token: int = -1,
    adapter: str | Path | None = None,
    weights: str | None = None,
    force: bool = False,
    progress: bool = False,
) -> LinearXray:
    """Looks at W[row, 64 block] and its neighbours, and at output `row` of the linear for one token of a text

    path     of the linear, Meta's name or Hugging Face's
    row      in the base's own layout
    token    of the text with the begin token before it, 0 on; negative from the end
    weights  a 4- or 8-bit format; left out, "nf4-dq" or as stored
    The base is loaded as `load` does on the CPU, computing in float32.
    Raises ValueError for a linear, row, block or token that is not there, a format that is not quantized, and whatever
    `load` and `load_adapter` do.
    """
    checkpoint = open_base(base)
    path = find_linear(path, checkpoint.config)
    n, k = checkpoint.config.linear_shapes()[path.split(".", 2)[2]]
    _check_range("row", row, n, f"{path} is {n} x {k}")
    _check_range("block", block, -(-k // BLOCK), f"a row of {path} has {k} weights, {BLOCK} a block")
    if weights is not None and weights not in QUANTIZED_NAMES:
        raise ValueError(f"weights must be one of {', '.join(QUANTIZED_NAMES)}, got {weights!r}")
    tokenizer = load_tokenizer(base)
    tokens = tokenizer.encode(text, bos=True, eos=False)
    if not -len(tokens) <= token < len(tokens):
        raise ValueError(f"token must be of 0 to {len(tokens) - 1}, or negative from the end, got {token}")
    token %= len(tokens)
    model = load(base, weights, torch.float32, progress=progress, force=force)
    if adapter is not None:
        load_adapter(model, NAME, adapter, force=force)
        if any(config.dora for config in layer_configs(model, NAME).values()):
            raise ValueError(
                f"{adapter}: is a DoRA, whose part of a number is no sum beside the base's: not taken apart"
            )
        use_adapter(model, NAME)
    x, y = capture(model, path, tokens)
    layer = model.get_submodule(path)
    quantized = _quantized(layer)
    original = _original(checkpoint, path)
    found = read_block(quantized, row, block, original)
    pieces = tuple(tokenizer.piece(id) for id in tokens)
    return LinearXray(
        str(base),
        path,
        (n, k),
        row,
        row_name(path, row, checkpoint.config),
        text,
        pieces,
        tuple(x[0, token].tolist()),
        found,
        _product(layer, x, y, row, token, found, None if original is None else original[row], pieces, adapter),
    )


def to_json(xray: LinearXray) -> dict[str, Any]:
    """All fields as JSON, with the verdicts."""
    figures = asdict(xray)
    figures["product"] |= {"exact": xray.product.is_exact, "within": xray.product.is_within}
    return figures


def find_linear(path: str, config: ModelConfig) -> str:
    """Meta's path of a linear.  Raises ValueError for one that is not there."""
    with suppress(KeyError):
        path = to_meta(path)
    paths = [f"layers.{layer}.{linear}" for layer in range(config.n_layers) for linear in LINEARS]
    if path not in paths:
        raise ValueError(
            f"unknown linear {path!r}: layers.0 to layers.{config.n_layers - 1}, each with {', '.join(LINEARS)}"
        )
    return path


def capture(model: Llama, path: str, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Input and output of one linear in a forward pass: x [1, T, K], y [1, T, N]

    A hook on the wrapped layer keeps the products of an adapter apart from the one with W: without it they may be one
    sum, rounded once.
    """
    captured: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        captured.extend((inputs[0].clone(), output.clone()))

    layer = model.get_submodule(path)
    handles = [layer.register_forward_hook(keep)]
    if isinstance(layer, LoRALinear):
        handles.append(layer.base.register_forward_hook(lambda *_: None))
    try:
        with torch.no_grad():
            model(torch.tensor([list(tokens)]))
    finally:
        for handle in handles:
            handle.remove()
    x, y = captured
    return x, y


def _check_range(name: str, value: int, count: int, shape: str) -> None:
    if not 0 <= value < count:
        raise ValueError(f"{name} must be of 0 to {count - 1}, got {value}: {shape}")


def _quantized(layer: nn.Module) -> QuantizedWeight:
    base = layer.base if isinstance(layer, LoRALinear) else layer
    assert isinstance(base, QuantLinear)
    return base.quantized


def _original(checkpoint: Any, path: str) -> Tensor | None:
    """W [N, K] as the folder has it, in float32; None if it is stored quantized."""
    parameter = next(part for part in checkpoint.parameters() if part.name == f"{path}.weight")
    value = parameter.read()
    return None if isinstance(value, QuantizedParts) else value.to(torch.float32, copy=True)


def _product(
    layer: nn.Module,
    x: Tensor,
    y: Tensor,
    row: int,
    token: int,
    block: Block,
    original_row: Tensor | None,
    pieces: Sequence[str],
    adapter: str | Path | None,
) -> Product:
    """The layer's own steps over again, on the same x: as `LoRALinear.forward` takes them."""
    lora = layer if isinstance(layer, LoRALinear) and NAME in layer.configs else None
    inside = layer.base if isinstance(layer, LoRALinear) else layer
    with torch.no_grad():
        out = inside(x)
        base, total, part = float(out[0, token, row]), out, None
        wide, weight = x[0, token].double(), reference.dequantize(_quantized(layer))[row].double()
        by_hand, size = float(wide @ weight), float(wide.abs() @ weight.abs())
        rank = 0
        if lora is not None:
            config, a, b = lora.configs[NAME], lora.A[NAME], lora.B[NAME]
            added = config.scaling * (x @ a) @ b
            total = out + added.to(out.dtype)
            inner, outer, rank = (x @ a)[0, token], b[:, row], config.rank
            part = AdapterPart(
                str(adapter),
                rank,
                config.scaling,
                tuple(inner.tolist()),
                tuple(outer.tolist()),
                float(added[0, token, row]),
            )
            by_hand += config.scaling * float((wide @ a.double()) @ b[:, row].double())
            size += abs(config.scaling) * float((wide.abs() @ a.double().abs()) @ b[:, row].double().abs())
    inside_row = [weight for weight in block.weights if weight.row == row]
    return Product(
        token,
        pieces[token],
        base,
        part,
        float(total[0, token, row]),
        float(y[0, token, row]),
        math.fsum(float(wide[weight.column]) * weight.value for weight in inside_row),
        by_hand,
        2 * (len(wide) + rank + 4) * UNIT * size,
        None if original_row is None else float(wide @ original_row.double()),
    )
