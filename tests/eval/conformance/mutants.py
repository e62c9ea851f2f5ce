"""NF4 in pieces, and implementations with one piece that is wrong: each with the rule that has to be named."""

from collections.abc import Callable

import torch
from torch import Tensor

from lowrank.eval.conformance.implementations import Outputs
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.codebooks import dynamic8, dynamic8_unsigned, fp4, nf4, nf4_from_quantiles


class Pieces:
    """NF4, every step a method of its own; quantize, dequantize and product put them together."""

    levels = nf4()
    eight = dynamic8()
    filler, nested_blocksize = 7, 256

    def quantize(self, w: Tensor, blocksize: int, nested: bool) -> Outputs:
        blocks = self.cut(self.checked(w), self.own(blocksize))
        absmax = self.maxima(blocks)
        scaled = torch.where(self.zero(absmax)[:, None], torch.zeros(()), self.scale(blocks, absmax))
        codes = self.search(scaled).flatten()[: w.numel()]
        codes = torch.cat([codes, torch.full((len(codes) % 2,), self.filler, dtype=torch.uint8)])
        found = {"codes": self.pack(codes), "absmax": absmax}
        return {"codes": found["codes"], **self.nest(absmax)} if nested else found

    def dequantize(self, stored: Outputs, shape: tuple[int, int], blocksize: int, dtype: torch.dtype) -> Tensor:
        count = shape[0] * shape[1]
        levels = self.levels[self.unpack(stored["codes"]).long()][:count]
        absmax = stored["absmax"] if "absmax" in stored else self.unnest(stored)
        return self.narrow(levels, self.spread(absmax, shape, self.own(blocksize)), dtype).view(shape)

    def product(self, x: Tensor, stored: Outputs, shape: tuple[int, int], blocksize: int) -> Tensor:
        return x @ self.dequantize(stored, shape, blocksize, x.dtype).T

    def own(self, blocksize: int) -> int:
        return blocksize

    def checked(self, w: Tensor) -> Tensor:
        return reference.finite(w, "w")

    def cut(self, w: Tensor, blocksize: int) -> Tensor:
        flat = w.flatten()
        return torch.nn.functional.pad(flat, (0, -len(flat) % blocksize)).view(-1, blocksize)

    def maxima(self, blocks: Tensor) -> Tensor:
        return blocks.abs().amax(dim=1).float()

    def zero(self, absmax: Tensor) -> Tensor:
        return absmax == 0

    def scale(self, blocks: Tensor, absmax: Tensor) -> Tensor:
        reciprocal = self.reciprocal(absmax)[:, None]
        return torch.where(torch.isinf(reciprocal), blocks / absmax[:, None], blocks * reciprocal)

    def reciprocal(self, absmax: Tensor) -> Tensor:
        return 1 / absmax

    def midpoints(self) -> Tensor:
        return (self.levels[:-1] + self.levels[1:]) / 2

    def search(self, scaled: Tensor) -> Tensor:
        return torch.bucketize(scaled, self.midpoints()).to(torch.uint8)

    def pack(self, codes: Tensor) -> Tensor:
        return codes[::2] << 4 | codes[1::2]

    def unpack(self, packed: Tensor) -> Tensor:
        return torch.stack([packed >> 4, packed & 15], dim=1).flatten()

    def spread(self, absmax: Tensor, shape: tuple[int, int], blocksize: int) -> Tensor:
        return absmax.repeat_interleave(blocksize)[: shape[0] * shape[1]]

    def narrow(self, levels: Tensor, absmax: Tensor, dtype: torch.dtype) -> Tensor:
        return (levels * absmax).to(dtype)

    def mean(self, absmax: Tensor) -> Tensor:
        return absmax.mean()

    def nest(self, absmax: Tensor) -> Outputs:
        offset = self.mean(absmax)
        blocks = (absmax - offset).view(-1, self.nested_blocksize)
        maxima = self.nested_maxima(blocks, offset)
        codes = self.nested_search(blocks * (1 / maxima)[:, None]).flatten()
        return {"absmax_codes": codes, "nested_absmax": maxima, "offset": offset.reshape(1)}

    def nested_maxima(self, blocks: Tensor, offset: Tensor) -> Tensor:
        return blocks.abs().amax(dim=1)

    def nested_search(self, scaled: Tensor) -> Tensor:
        return reference.nearest_code(scaled, self.eight)

    def unnest(self, stored: Outputs) -> Tensor:
        codes = stored["absmax_codes"]
        maxima = stored["nested_absmax"].repeat_interleave(self.nested_blocksize)
        maxima = torch.cat([maxima, maxima[-1:].expand(max(0, len(codes) - len(maxima)))])[: len(codes)]
        return self.summed(self.eight[codes.long()], maxima, stored["offset"])

    def summed(self, levels: Tensor, maxima: Tensor, offset: Tensor) -> Tensor:
        return levels * maxima + offset


def mutant(rule: str, **pieces: object) -> tuple[str, type[Pieces]]:
    """(the rule that has to be named, NF4 with pieces of its own)"""
    return rule, type("Mutant", (Pieces,), pieces)


def rows_begin_blocks(self: Pieces, absmax: Tensor, shape: tuple[int, int], blocksize: int) -> Tensor:
    each = -(-shape[1] // blocksize)
    index = torch.arange(shape[0])[:, None] * each + torch.arange(shape[1])[None] // blocksize
    return absmax[index.flatten().clamp(max=len(absmax) - 1)]


def by_column(self: Pieces, absmax: Tensor, shape: tuple[int, int], blocksize: int) -> Tensor:
    count = shape[0] * shape[1]
    index = (torch.arange(count).view(shape[1], shape[0]).T // blocksize).flatten()
    return absmax[index]


def without_tail(self: Pieces, absmax: Tensor, shape: tuple[int, int], blocksize: int) -> Tensor:
    count = shape[0] * shape[1]
    spread = Pieces.spread(self, absmax, shape, blocksize).clone()
    if count % 2:
        spread[count - count % blocksize :] = 0
    return spread


def cut_bfloat16(self: Pieces, levels: Tensor, absmax: Tensor, dtype: torch.dtype) -> Tensor:
    w = levels * absmax
    return (w.view(torch.int32) & -65536).view(torch.float32).to(dtype) if dtype == torch.bfloat16 else w.to(dtype)


def in_dtype(self: Pieces, levels: Tensor, absmax: Tensor, dtype: torch.dtype) -> Tensor:
    return levels.to(dtype) * absmax.to(dtype)


def twice_rounded(self: Pieces, levels: Tensor, absmax: Tensor, dtype: torch.dtype) -> Tensor:
    w = levels * absmax
    return w.bfloat16().to(dtype) if dtype == torch.float16 else w.to(dtype)


def rounded(dtype: torch.dtype) -> Callable[..., Tensor]:
    return lambda self, levels, absmax, to: (levels * absmax.to(dtype).float()).to(to)


def even_ties(self: Pieces, scaled: Tensor) -> Tensor:
    low, high = (torch.bucketize(scaled, self.midpoints(), right=right) for right in (False, True))
    return torch.where((low != high) & (low % 2 == 1), high, low).to(torch.uint8)


def straddling_product(self: Pieces, x: Tensor, stored: Outputs, shape: tuple[int, int], blocksize: int) -> Tensor:
    rows = type("Rows", (Pieces,), {"spread": rows_begin_blocks})()
    return x @ rows.dequantize(stored, shape, blocksize, x.dtype).T


def without_last_column(self: Pieces, x: Tensor, stored: Outputs, shape: tuple[int, int], blocksize: int) -> Tensor:
    w = self.dequantize(stored, shape, blocksize, x.dtype)
    return x[:, :-1] @ w[:, :-1].T


def narrow_product(self: Pieces, x: Tensor, stored: Outputs, shape: tuple[int, int], blocksize: int) -> Tensor:
    return x @ self.dequantize(stored, shape, blocksize, torch.bfloat16).float().T


def narrow_input(self: Pieces, x: Tensor, stored: Outputs, shape: tuple[int, int], blocksize: int) -> Tensor:
    return x.bfloat16().float() @ self.dequantize(stored, shape, blocksize, x.dtype).T


class InItsOwnType(Pieces):
    """Weights are scaled in the type that they come in."""

    def checked(self, w: Tensor) -> Tensor:
        super().checked(w)
        return w

    def scale(self, blocks: Tensor, absmax: Tensor) -> Tensor:
        if blocks.dtype == torch.float32:
            return super().scale(blocks, absmax)
        return (blocks / absmax.to(blocks.dtype)[:, None]).float()


class FusedSum(Pieces):
    """level * maximum + offset with one rounding."""

    def summed(self, levels: Tensor, maxima: Tensor, offset: Tensor) -> Tensor:
        return (levels.double() * maxima + offset).float()


MUTANTS: dict[str, tuple[str, type[Pieces]]] = {
    "four decimals": mutant("levels", levels=(nf4() * 1e4).round() / 1e4),
    "levels from quantiles": mutant("levels", levels=torch.tensor(nf4_from_quantiles(), dtype=torch.float32)),
    "levels of FP4": mutant("levels", levels=fp4()),
    "no exact zero": mutant("levels", levels=torch.where(nf4() == 0, torch.tensor(1e-4), nf4())),
    "low nibble first": mutant(
        "nibble-order",
        pack=lambda self, codes: codes[1::2] << 4 | codes[::2],
        unpack=lambda self, packed: torch.stack([packed & 15, packed >> 4], dim=1).flatten(),
    ),
    "low nibble read first": mutant(
        "nibble-order", unpack=lambda self, packed: torch.stack([packed & 15, packed >> 4], dim=1).flatten()
    ),
    "blocks down the columns": mutant("blocks", spread=by_column),
    "one maximum late": mutant(
        "blocks", spread=lambda self, absmax, shape, size: Pieces.spread(self, absmax.roll(1), shape, size)
    ),
    "64 everywhere": mutant("blocksizes", own=lambda self, blocksize: 64),
    "rows begin blocks": mutant("straddling-rows", spread=rows_begin_blocks),
    "no tail": mutant("tail", spread=without_tail),
    "odd count filled with 0": mutant("tail", filler=0),
    "maxima in bfloat16": mutant("float32-product", narrow=rounded(torch.bfloat16)),
    "maxima in float16": mutant("float32-product", narrow=rounded(torch.float16)),
    "bfloat16 cut": mutant("rounding-bfloat16", narrow=cut_bfloat16),
    "factors in bfloat16": mutant("rounding-bfloat16", narrow=in_dtype),
    "float16 through bfloat16": mutant("rounding-float16", narrow=twice_rounded),
    "maximum without abs": mutant("absmax", maxima=lambda self, blocks: blocks.amax(dim=1).float()),
    "maximum in bfloat16": mutant("absmax", maxima=lambda self, blocks: blocks.abs().amax(dim=1).bfloat16().float()),
    "second largest": mutant("absmax", maxima=lambda self, blocks: blocks.abs().topk(2).values[:, 1].float()),
    "one code too high": mutant(
        "nearest-level", search=lambda self, scaled: Pieces.search(self, scaled).add(1).clamp(max=15)
    ),
    "levels below": mutant(
        "nearest-level",
        search=lambda self, scaled: (torch.bucketize(scaled, self.levels, right=True) - 1).clamp(min=0).to(torch.uint8),
    ),
    "six decimals of midpoints": mutant(
        "thresholds", midpoints=lambda self: (Pieces.midpoints(self) * 1e6).round() / 1e6
    ),
    "midpoints in float16": mutant(
        "nearest-level", midpoints=lambda self: (Pieces.midpoints(self).half().float()) + 2e-3
    ),
    "ties upward": mutant(
        "ties", search=lambda self, scaled: torch.bucketize(scaled, self.midpoints(), right=True).to(torch.uint8)
    ),
    "ties to even": mutant("ties", search=even_ties),
    "division": mutant("reciprocal", scale=lambda self, blocks, absmax: blocks / absmax[:, None]),
    "approximate reciprocal": mutant("reciprocal", reciprocal=lambda self, absmax: (1 / absmax).bfloat16().float()),
    "scaled in its own type": ("input-types", InItsOwnType),
    "zeros are minus one": mutant(
        "zero-block",
        search=lambda self, scaled: torch.where(
            (scaled == 0).all(dim=1, keepdim=True), 0, Pieces.search(self, scaled)
        ).to(torch.uint8),
    ),
    "zeros have maximum one": mutant(
        "zero-block", maxima=lambda self, blocks: torch.where((m := blocks.abs().amax(dim=1)) == 0, 1.0, m)
    ),
    "infinity times w": mutant(
        "denormal-block", scale=lambda self, blocks, absmax: (blocks * (1 / absmax)[:, None]).nan_to_num(0, 1, -1)
    ),
    "denormals are zero": mutant("denormal-block", zero=lambda self, absmax: absmax < torch.finfo(torch.float32).tiny),
    "NaN is zero": mutant("not-finite", checked=lambda self, w: w.float().nan_to_num(0.0, 1.0, -1.0)),
    "unsigned map": mutant("nested-levels", eight=dynamic8_unsigned()),
    "linear map": mutant("nested-levels", eight=torch.linspace(-1, 1, 256)),
    "nested blocks of 128": mutant("nested-blocks", nested_blocksize=128),
    "offset left out": mutant("nested-sum", summed=lambda self, levels, maxima, offset: levels * maxima),
    "a fused multiply-add": ("nested-sum", FusedSum),
    "median for mean": mutant("nested-offset", mean=lambda self, absmax: absmax.median()),
    "no offset": mutant("nested-offset", mean=lambda self, absmax: torch.zeros(())),
    "maxima of maxima": mutant(
        "nested-absmax", nested_maxima=lambda self, blocks, offset: (blocks + offset).abs().amax(dim=1)
    ),
    "two codes off": mutant(
        "nested-codes", nested_search=lambda self, scaled: Pieces.nested_search(self, scaled).clamp(max=250) + 4
    ),
    "a neighbouring code": mutant(
        "nested-choice", nested_search=lambda self, scaled: Pieces.nested_search(self, scaled).clamp(min=1) - 1
    ),
    "last column left out": mutant("one-hot", product=without_last_column),
    "weights in bfloat16": mutant("one-hot", product=narrow_product),
    "rows of the product begin blocks": mutant("one-hot-straddling", product=straddling_product),
    "x in bfloat16": mutant("product", product=narrow_input),
}
