"""Inputs that isolate a rule, and the outputs that it asks for, by the plain-torch reference.

Three operations: `quantize` (w -> codes, absmax; nested: codes, absmax_codes, nested_absmax, offset), `dequantize`
(those -> w) and `product` (x and those -> y = x W^T). Numbers come from Python's own generator, whose values are the
same everywhere, through exact arithmetic. N rows, K columns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

import torch
from torch import Tensor

from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.codebooks import dynamic8, nf4
from lowrank.kernels.weights.quantized_weight import BLOCKSIZES, Blockwise4bit, NestedAbsmax

from .nested_search import SEARCHES

Operation = Literal["quantize", "dequantize", "product"]
BYTES, STEPS, WITHIN, NOT_FINITE = "bytes", "steps", "within", "not-finite"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "uint8": torch.uint8}


@dataclass(frozen=True)
class Check:
    """One output beside what a rule asks for.

    compare   bytes: equal to one of `accepted`; steps: uint8, each at most one from one of them; within: |y - exact|
              <= bound, element by element; not-finite: refused, or NaN or infinity in it
    accepted  by the name of what finds it so
    """

    output: str
    rule: str
    accepted: Mapping[str, Tensor]
    compare: str = BYTES


@dataclass(frozen=True)
class Case:
    """One call: its inputs by name, and what is looked at in its outputs; dtype is that of w of dequantize."""

    name: str
    operation: Operation
    shape: tuple[int, int]
    inputs: Mapping[str, Tensor]
    checks: tuple[Check, ...]
    blocksize: int = 64
    nested: bool = False
    dtype: str = "float32"


@cache
def cases() -> tuple[Case, ...]:
    """All of them, one operation after another."""
    return tuple(case for make in MAKERS for case in make())


def uniform(random: Random, *shape: int) -> Tensor:
    """float32 in (-1, 1), 24 bits each, exactly"""
    count = torch.Size(shape).numel()
    return torch.tensor([random.getrandbits(24) / 2**23 - 1 for _ in range(count)], dtype=torch.float32).view(shape)


def bell(random: Random, *shape: int) -> Tensor:
    """The mean of four such numbers, float32"""
    return (sum(uniform(random, *shape).double() for _ in range(4)) / 4).float()  # type: ignore[union-attr]


def codes_at(random: Random, count: int) -> Tensor:
    """uint8 of two random codes each."""
    return torch.tensor([random.getrandbits(8) for _ in range(-(-count // 2))], dtype=torch.uint8)


def expected_w(case_inputs: Mapping[str, Tensor], shape: tuple[int, int], blocksize: int, dtype: str) -> Tensor:
    """W of stored codes, by the reference."""
    return reference.dequantize_4bit(_stored(case_inputs, shape, blocksize), DTYPES[dtype])


def _stored(inputs: Mapping[str, Tensor], shape: tuple[int, int], blocksize: int) -> Blockwise4bit:
    if "absmax" in inputs:
        return Blockwise4bit(inputs["codes"], inputs["absmax"], "nf4", blocksize, shape)
    nested = NestedAbsmax(inputs["absmax_codes"], inputs["nested_absmax"], inputs["offset"].squeeze())
    return Blockwise4bit(inputs["codes"], nested, "nf4", blocksize, shape)


def _dequantize(
    name: str,
    rule: str,
    shape: tuple[int, int],
    codes: Tensor,
    absmax: Tensor,
    blocksize: int = 64,
    dtype: str = "float32",
) -> Case:
    inputs = {"codes": codes, "absmax": absmax}
    w = expected_w(inputs, shape, blocksize, dtype)
    return Case(name, "dequantize", shape, inputs, (Check("w", rule, {"reference": w}),), blocksize, dtype=dtype)


def _quantize(name: str, w: Tensor, rules: Mapping[str, str], blocksize: int = 64) -> Case:
    """rules  the rule that an output is judged by: "codes", "absmax" """
    found = reference.quantize_4bit(w, "nf4", blocksize)
    assert isinstance(found.absmax, Tensor)
    outputs = {"codes": found.codes, "absmax": found.absmax}
    checks = tuple(Check(output, rule, {"reference": outputs[output]}) for output, rule in rules.items())
    return Case(name, "quantize", (w.shape[0], w.shape[1]), {"w": w}, checks, blocksize)


def _maxima(random: Random, count: int) -> Tensor:
    """Away from powers of two, float32."""
    return uniform(random, count).abs() * 0.9 + 0.05


def _stored_cases() -> list[Case]:
    """Levels, order, blocks and rounding, of codes that are given."""
    random, found = Random(1), []
    same = torch.tensor([17 * code for code in range(16)] * 2, dtype=torch.uint8)
    found.append(_dequantize("levels", "levels", (1, 64), same, torch.ones(1)))
    mixed = torch.tensor([16 * (i % 16) + (7 * i + 3) % 16 for i in range(64)], dtype=torch.uint8)
    found.append(_dequantize("nibbles", "nibble-order", (2, 64), mixed, torch.ones(2)))
    powers = torch.tensor([2.0 ** (i % 7) for i in range(12)])
    found.append(_dequantize("blocks", "blocks", (3, 256), codes_at(random, 768), powers))
    for blocksize in BLOCKSIZES:
        if blocksize != 64:
            shape = (2, blocksize)
            found.append(
                _dequantize(
                    f"blocks-of-{blocksize}",
                    "blocksizes",
                    shape,
                    codes_at(random, 2 * blocksize),
                    powers[:2],
                    blocksize,
                )
            )
    for columns in (96, 32, 66):
        count = 6 * columns
        blocks = -(-count // 64)
        found.append(
            _dequantize(
                f"straddle-{columns}", "straddling-rows", (6, columns), codes_at(random, count), powers[:blocks]
            )
        )
    found.append(_dequantize("tail", "tail", (3, 77), codes_at(random, 231), powers[:4]))
    shape = (4, 128)
    for dtype, rule in (
        ("float32", "float32-product"),
        ("bfloat16", "rounding-bfloat16"),
        ("float16", "rounding-float16"),
    ):
        found.append(_dequantize(f"round-{dtype}", rule, shape, codes_at(random, 512), _maxima(random, 8), dtype=dtype))
    return found


def _midpoints() -> Tensor:
    return reference.boundaries(nf4())[0]


def _block(values: Tensor) -> Tensor:
    """[1, 64]: a one that makes the maximum 1, then values, then zeros."""
    return torch.cat([torch.ones(1), values, torch.zeros(63 - len(values))])[None]


def _quantized_cases() -> list[Case]:
    random, found = Random(2), []
    w = bell(random, 4, 128)
    w[0, 0], w[1, 127], w[2, 63] = -1.5, -2.25, 3.0
    found.append(_quantize("maxima", w, {"absmax": "absmax"}))
    exact = bell(random, 4, 128)
    exact[:, ::64] = torch.tensor([1.0, -2.0, 0.5, -4.0])[:, None]
    found.append(_quantize("nearest", exact, {"codes": "nearest-level", "absmax": "absmax"}))
    found.append(_quantize("constant", torch.full((1, 64), -0.75), {"codes": "nearest-level", "absmax": "absmax"}))
    outlier = bell(random, 1, 64) / 64
    outlier[0, 9] = 128.0
    found.append(_quantize("outlier", outlier, {"codes": "nearest-level"}))
    middle = _midpoints()
    up, down = (middle.nextafter(torch.full_like(middle, end)) for end in (2.0, -2.0))
    found.append(_quantize("beside-midpoints", _block(torch.cat([up, down])), {"codes": "thresholds"}))
    found.append(_quantize("midpoints", _block(torch.cat([middle, middle])), {"codes": "ties"}))
    found.append(_quantize("reciprocals", _where_division_decides(random), {"codes": "reciprocal"}))
    for blocksize in BLOCKSIZES:
        if blocksize != 64:
            values = bell(random, 2, blocksize)
            values[:, 0] = torch.tensor([1.0, -1.0])
            found.append(
                _quantize(
                    f"quantize-of-{blocksize}", values, dict.fromkeys(("codes", "absmax"), "blocksizes"), blocksize
                )
            )
    for columns, rule in ((96, "straddling-rows"), (77, "tail")):
        values = bell(random, 3, columns).flatten()
        values[::64] = 1.0
        found.append(
            _quantize(f"quantize-{columns}", values.view(3, columns), dict.fromkeys(("codes", "absmax"), rule))
        )
    for dtype in ("bfloat16", "float16"):
        narrow = bell(random, 4, 128).to(DTYPES[dtype])
        found.append(_quantize(f"quantize-{dtype}", narrow, dict.fromkeys(("codes", "absmax"), "input-types")))
    zeros = torch.zeros(2, 64)
    zeros[1, 5], zeros[0, 3] = 1.0, -0.0
    found.append(_quantize("zeros", zeros, dict.fromkeys(("codes", "absmax"), "zero-block")))
    tiny = exact[:1, :64] * 2.0**-135
    found.append(_quantize("denormals", tiny, dict.fromkeys(("codes", "absmax"), "denormal-block")))
    for name, value in (("nan", float("nan")), ("infinity", float("inf"))):
        bad = bell(random, 1, 128)
        bad[0, 70] = value
        check = Check("w", "not-finite", {}, NOT_FINITE)
        found.append(Case(name, "quantize", (1, 128), {"w": bad}, (check,)))
    return found


def _where_division_decides(random: Random) -> Tensor:
    """[4, 64]: blocks of weights that the reciprocal puts on one side of a midpoint and a division on the other."""
    middle = _midpoints()
    rows: list[Tensor] = []
    while len(rows) < 4:
        absmax = _maxima(random, 1)
        weights = [absmax]
        for at in middle * absmax:
            near = [at]
            for end in (2.0, -2.0):
                near += [step := at.nextafter(torch.tensor(end)), step.nextafter(torch.tensor(end))]
            candidates = torch.stack(near)
            by_reciprocal = reference.nearest_code(candidates * (1 / absmax), nf4())
            is_other = by_reciprocal != reference.nearest_code(candidates / absmax, nf4())
            weights.append(candidates[is_other])
        row = torch.cat(weights)[:64]
        if len(row) >= 4:
            rows.append(torch.cat([row, torch.zeros(64 - len(row))]))
    return torch.stack(rows)


def _nested_cases() -> list[Case]:
    random, found = Random(3), []
    ones = torch.full((256 * 32,), 0xFF, dtype=torch.uint8)
    codes = torch.arange(256, dtype=torch.uint8)
    found.append(_nested("nested-levels", "nested-levels", (256, 64), ones, codes, torch.ones(1), 0.0))
    more = torch.full((300 * 32,), 0xFF, dtype=torch.uint8)
    found.append(
        _nested("nested-blocks", "nested-blocks", (300, 64), more, codes_at(random, 600), torch.tensor([1.0, 4.0]), 0.0)
    )
    drawn = codes_at(random, 300 * 64)
    found.append(
        _nested("nested-sum", "nested-sum", (300, 64), drawn, codes_at(random, 600), _maxima(random, 2), 0.7219)
    )
    found.append(_nested_quantize(random))
    return found


def _nested(
    name: str, rule: str, shape: tuple[int, int], codes: Tensor, eight: Tensor, maxima: Tensor, offset: float
) -> Case:
    inputs = {"codes": codes, "absmax_codes": eight, "nested_absmax": maxima, "offset": torch.tensor([offset])}
    w = expected_w(inputs, shape, 64, "float32")
    return Case(name, "dequantize", shape, inputs, (Check("w", rule, {"reference": w}),), nested=True)


def _nested_quantize(random: Random) -> Case:
    """512 blocks whose maxima have an exact mean in any order of summation, some of them near midpoints of the code"""
    middle = reference.boundaries(dynamic8())[0]
    wanted = [1024 + round(float(value) * 1000) for value in middle] + [2024, 24]
    wanted += [1024 + random.randrange(100, 900) for _ in range(512 - len(wanted))]
    wanted[-1] += (1024 * 512 - sum(wanted)) % 512
    short = 1024 * 512 - sum(wanted)
    for index in range(len(wanted) - 2, 300, -1):  # so that the mean is 1024 without a rounding
        move = max(-900, min(900, short))
        if 24 <= wanted[index] + move <= 2024:
            wanted[index] += move
            short -= move
    maxima = torch.tensor(wanted, dtype=torch.float32) / 4096
    w = torch.zeros(512, 64)
    w[:, 0] = maxima
    found = reference.quantize_4bit(w, "nf4", 64, double_quant=True)
    nested = found.absmax
    assert isinstance(nested, NestedAbsmax)
    blocks = (maxima - nested.offset).view(-1, 256)
    scaled = blocks * (1 / nested.nested_absmax)[:, None]
    searched = {name: search(scaled).flatten() for name, search in SEARCHES.items()}
    checks = (
        Check("offset", "nested-offset", {"reference": nested.offset[None]}),
        Check("nested_absmax", "nested-absmax", {"reference": nested.nested_absmax}),
        Check("absmax_codes", "nested-codes", searched, STEPS),
        Check("absmax_codes", "nested-choice", searched),
    )
    return Case("nested-quantize", "quantize", (512, 64), {"w": w}, checks, nested=True)


def _product_cases() -> list[Case]:
    random, found = Random(4), []
    for rows, columns, rule in (
        (6, 128, "one-hot"),
        (5, 96, "one-hot-straddling"),
        (5, 32, "one-hot-straddling"),
        (3, 77, "one-hot-straddling"),
    ):
        count = rows * columns
        inputs = {
            "x": torch.eye(columns),
            "codes": codes_at(random, count),
            "absmax": _maxima(random, -(-count // 64)),
        }
        y = expected_w(inputs, (rows, columns), 64, "float32").T.contiguous()
        check = Check("y", rule, {"reference": y})
        found.append(Case(f"one-hot-{columns}", "product", (rows, columns), inputs, (check,)))
    for m in (1, 5):
        inputs = {"x": bell(random, m, 256), "codes": codes_at(random, 16 * 256), "absmax": _maxima(random, 64)}
        w = expected_w(inputs, (16, 256), 64, "float32").double()
        x = inputs["x"].double()
        bound = 256**0.5 * torch.finfo(torch.float32).eps * (x.abs() @ w.abs().T)
        check = Check("y", "product", {"exact": (x @ w.T).float(), "bound": bound.float()}, WITHIN)
        found.append(Case(f"product-of-{m}", "product", (16, 256), inputs, (check,)))
    return found


MAKERS: tuple[Callable[[], list[Case]], ...] = (_stored_cases, _quantized_cases, _nested_cases, _product_cases)
