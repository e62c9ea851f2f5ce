"""Checks of the kernels that read repacked weights: decode_checks.py CHECK DEVICE FOLDER.

test_decode.py runs each in a process of its own.

On the device "cpu" with TRITON_INTERPRET=1, which Triton reads when a kernel is decorated, else on a GPU.
"""

import itertools
import math
import sys
from dataclasses import replace

import numpy
import torch
import triton.language as tl
from error_bounds import assert_product_is_exact_enough
from triton.runtime import interpreter

from lowrank.kernels.reference import weights as reference
from lowrank.kernels.triton.gemm import fused_linear, fused_linear_backward
from lowrank.kernels.triton.gemm_kernels import fused_linear_backward_kernel, fused_linear_kernel
from lowrank.kernels.triton.gemv import decode_linear, decode_linear_backward
from lowrank.kernels.triton.gemv_kernels import decode_linear_backward_kernel, decode_linear_kernel
from lowrank.kernels.triton.launch import constants
from lowrank.kernels.weights.codebooks import CODEBOOKS, dynamic8
from lowrank.kernels.weights.quantized_weight import Blockwise4bit, NestedAbsmax
from lowrank.kernels.weights.repack import repack

_, CHECK, DEVICE, FOLDER = sys.argv
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
DECODE, FUSED = (decode_linear, decode_linear_backward), (fused_linear, fused_linear_backward)


def products(dtype):
    """Every (y = x W^T, dX = dY W) that takes the dtype."""
    return (DECODE,) if dtype == torch.float32 else (DECODE, FUSED)


# Two things that Triton's interpreter does otherwise than a GPU. It cuts float32 off where it makes a bfloat16, and it
# multiplies the bit patterns of bfloat16 matrices.
convert, dot = interpreter._convert_float, interpreter.InterpreterBuilder.create_dot


def rounded(data, source, target, mode):
    if (source, target) == (tl.float32, tl.bfloat16):
        return torch.from_numpy(numpy.ascontiguousarray(data)).bfloat16().view(torch.int16).numpy()
    return convert(data, source, target, mode)


def widened(builder, a, b, *rest):
    def wide(tile):
        if tile.dtype.scalar != tl.bfloat16:
            return tile
        values = torch.from_numpy(tile.data.view(numpy.int16)).view(torch.bfloat16).float().numpy()
        return interpreter.TensorHandle(values, tl.float32)

    return dot(builder, wide(a), wide(b), *rest)


interpreter._convert_float, interpreter.InterpreterBuilder.create_dot = rounded, widened

empty = torch.empty
torch.empty = lambda *size, **kw: empty(*size, **kw).fill_(float("nan"))  # an element that is not written is seen


def on_device(weight):
    return weight.with_tensors({name: tensor.to(DEVICE) for name, tensor in weight.tensors().items()})


def check_error():
    """The rule of error_bounds.py, for weights and rows of all sizes."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 1, 64, 64), (3, 70, 192, 64), (17, 65, 512, 64), (65, 33, 256, 128)]
    formats = [("nf4", True), ("fp4", False)]
    for (m, n, k, blocksize), (format, nested), dtype in itertools.product(shapes, formats, DTYPES):
        weight = reference.quantize_4bit(torch.randn(n, k, generator=generator), format, blocksize, nested)
        packed = repack(on_device(weight))
        exact = reference.dequantize_4bit(weight).double()
        dense = reference.dequantize_4bit(weight, dtype)
        x, dy = (torch.randn(m, columns, generator=generator).to(dtype) for columns in (k, n))
        for linear, linear_backward in products(dtype):
            print(linear.__name__, m, n, k, blocksize, format, nested, dtype, file=sys.stderr)
            assert_product_is_exact_enough(linear(x.to(DEVICE), packed).cpu(), x, dense.T, exact.T)
            assert_product_is_exact_enough(linear_backward(dy.to(DEVICE), packed).cpu(), dy, dense, exact)


def integer_weight(n, k, blocksize, nested, generator):
    """A weight of small integers times powers of two, and itself in float64."""
    levels = [-8, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 9]
    CODEBOOKS["nf4"] = lambda: torch.tensor(levels, dtype=torch.float32)
    reference._byte_to_pair.cache_clear()
    count = n * k // blocksize
    codes = torch.randint(0, 256, (n * k // 2,), dtype=torch.uint8, generator=generator)
    absmax = 2.0 ** torch.randint(-2, 3, (count,), generator=generator)
    if nested:  # the levels 1 and 0 of the 8-bit code times a power of two
        codes8 = torch.where(torch.rand(count, generator=generator) < 0.8, 255, int((dynamic8() == 0).nonzero()))
        maxima = 2.0 ** torch.randint(-2, 3, (-(-count // 256),), generator=generator)
        absmax = NestedAbsmax(codes8.to(torch.uint8), maxima, torch.tensor(0.0))
    weight = Blockwise4bit(codes, absmax, "nf4", blocksize, (n, k))
    return weight, reference.dequantize_4bit(weight).double()


def check_exact():
    """One-hot rows give each weight, and small integers their exact sums, bit for bit, for every way to share a sum."""
    generator = torch.Generator().manual_seed(0)
    cases = list(itertools.product([(1, 64, 64), (70, 256, 64)], (False, True), [torch.bfloat16]))
    cases += itertools.product([(33, 192, 64), (65, 128, 128)], [True], DTYPES)
    for (n, k, blocksize), nested, dtype in cases:
        weight, exact = integer_weight(n, k, blocksize, nested, generator)
        packed = repack(on_device(weight))
        rows = [(torch.eye(k), torch.eye(n), None)]
        for m, splits in ((1, None), (9, 3), (66, 1)):
            small = (torch.randint(-3, 4, (m, columns), generator=generator) for columns in (k, n))
            rows.append((*small, splits))
        for (x, dy, splits), (linear, linear_backward) in itertools.product(rows, products(dtype)):
            y = linear(x.to(DEVICE, dtype), packed, splits)
            dx = linear_backward(dy.to(DEVICE, dtype), packed, splits)
            case = (linear.__name__, n, k, blocksize, nested, dtype, len(x), splits)
            assert torch.equal(y.cpu(), (x.double() @ exact.T).to(dtype)), case
            assert torch.equal(dx.cpu(), (dy.double() @ exact).to(dtype)), case


def check_inputs():
    """Strides of any kind, more than two dimensions, no rows at all, and what is refused."""
    generator = torch.Generator().manual_seed(0)
    weight, exact = integer_weight(70, 128, 64, True, generator)
    packed = repack(on_device(weight))
    wide = torch.randint(-3, 4, (400, 300), generator=generator).bfloat16().to(DEVICE)
    views = {
        "transposed": wide.T[:7, 5:133],
        "every third": wide[3:10, 1:256:2],
        "misaligned": wide.flatten()[1 : 1 + 7 * 128].view(7, 128),
        "one row repeated": wide[0, :128].expand(7, 128),
        "backwards in memory": wide[:7, :128].flip(0),
        "three dimensions": wide[:6, :128].view(2, 3, 128),
        "a vector": wide[0, :128],
        "no rows": wide[:0, :128],
        "no rows in three dimensions": wide.new_zeros(2, 0, 128),
    }
    for (name, x), (linear, linear_backward) in itertools.product(views.items(), (DECODE, FUSED)):
        y = linear(x, packed)
        assert y.shape == (*x.shape[:-1], 70) and y.dtype == x.dtype, name
        assert torch.equal(y.cpu(), (x.cpu().double() @ exact.T).bfloat16()), name
        dy = x[..., :70]
        dx = linear_backward(dy, packed)
        assert dx.shape == (*x.shape[:-1], 128), name
        assert torch.equal(dx.cpu(), (dy.cpu().double() @ exact).bfloat16()), name
    row = integer_weight(1, 512, 64, True, generator)
    ones = torch.ones(1, 512).bfloat16().to(DEVICE)
    y = decode_linear(
        ones, repack(on_device(row[0])), splits=2
    )  # one output: a size of 1 is a constant to the compiler
    assert torch.equal(y.cpu(), row[1].sum(1, keepdim=True).bfloat16()), "one output"
    refused = {
        "x must end in in_features 128, got shape (3, 70)": lambda: decode_linear(wide[:3, :70], packed),
        "dy must end in out_features 70, got shape (3, 128)": lambda: decode_linear_backward(wide[:3, :128], packed),
        "x must be of torch.float32, torch.bfloat16, torch.float16, got torch.float64": lambda: decode_linear(
            wide.double(), packed
        ),
        "x must be of torch.bfloat16, torch.float16, got torch.float32": lambda: fused_linear(wide.float(), packed),
        "dy must end in out_features 70, got shape (5, 128)": lambda: fused_linear_backward(wide[:5, :128], packed),
        "codes must be (1, 70, 2, 32) for W (70, 128), got shape (70, 1, 2, 32)": lambda: decode_linear(
            wide[:3, :128], replace(packed, codes=packed.codes.view(70, 1, 2, 32))
        ),
        f"x must be on the device of the weight, {packed.codes.device}, got meta": lambda: decode_linear(
            wide[:3, :128].to("meta"), packed
        ),
    }
    for message, call in refused.items():
        try:
            call()
        except ValueError as error:
            assert str(error) == message, error
        else:
            raise AssertionError(f"not refused: {message}")


def check_addresses():
    """Every tensor that a program addresses has over 2^31 elements: a sparse file, read and written far in.

    Codes [4 groups, N, 1, 32] with N = 2^26: the last group begins at byte 3 * 2^31. Only a few programs are run.
    """
    n, groups, m = 1 << 26, 4, 3
    generator = torch.Generator().manual_seed(0)

    def sparse(name, size, dtype):
        return torch.from_file(f"{FOLDER}/{name}", shared=True, size=size, dtype=dtype)

    tile = torch.randint(0, 256, (64, 32), dtype=torch.uint8, generator=generator)
    codes = sparse("codes", groups * n * 32, torch.uint8).view(groups, n, 1, 32)
    codes[3, :64, 0] = tile
    absmax = sparse("absmax", groups * n, torch.float32).view(groups, n, 1)
    absmax[3, :64, 0] = 2.0 ** torch.randint(-2, 3, (64,), generator=generator)
    levels, table, levels8 = constants("nf4", torch.float32, torch.device("cpu"))
    far = 1 << 31
    rows = sparse("rows", m * far, torch.float32).as_strided((m, 64 * groups), (far, 1))  # x, and dY with N = 64
    rows[:] = torch.randint(-3, 4, rows.shape, generator=generator).float()
    low, high = (levels[(tile >> shift & 15).int()] for shift in (0, 4))
    w = torch.cat([low, high], dim=1) * absmax[3, :64]

    sizes = {"BLOCK_M": 8, "BLOCK_N": 64, "BLOCKSIZE": 64, "GROUP": 1, "NESTED_BLOCKSIZE": 0, "STAGES": 1}
    sizes["ASSEMBLY"] = False
    rest = (levels, table, levels8, levels8, levels8, m, n, groups, *rows.stride())
    y = sparse("y", groups * m * n, torch.float32).view(groups, m, n)
    for kernel in (decode_linear_kernel, fused_linear_kernel):
        y[3, :, :64] = math.nan
        kernel[(1, groups, 1)](y, rows, codes, absmax, *rest, groups, **sizes)
        torch.testing.assert_close(y[3, :, :64], rows[:, 192:] @ w.T)

    splits = n // 64  # the first of them is run: rows 0 to 63 of W
    for kernel in (decode_linear_backward_kernel, fused_linear_backward_kernel):
        dx = torch.empty(1, m, 64 * groups)
        kernel[(groups, 1, 1)](dx, rows, codes, absmax, *rest, splits, **sizes, WHOLE_TILES=True)
        torch.testing.assert_close(dx[0, :, 192:], rows[:, :64] @ w)


{"error": check_error, "exact": check_exact, "inputs": check_inputs, "addresses": check_addresses}[CHECK]()
print("passed")
