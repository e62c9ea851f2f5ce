"""Checks of the kernels of adapters that ride in the products with W: riding_adapter_checks.py CHECK DEVICE FOLDER

block_matrix   Z, bit by bit as the reference has it
beside         [X | X narrow], the copy bit by bit, the product against float64
gradients      dA and dB of all linears against float64
products       y, dX, dA and dB of a plan by all three kernels, against float64
"""

import itertools
import os
import sys

import torch
from error_bounds import assert_sums_are_exact_enough
from torch import Tensor
from triton_as_on_a_gpu import patch

from lowrank.kernels.dispatch import dequant_gemm
from lowrank.kernels.reference import riding_adapters as reference
from lowrank.kernels.reference import weights
from lowrank.kernels.triton import riding_adapters
from lowrank.kernels.weights.linear_with_adapter import LinearWithAdapter
from lowrank.kernels.weights.repack import repack

_, CHECK, DEVICE, _FOLDER = sys.argv
IS_EMULATED = DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1"
GENERATOR = torch.Generator().manual_seed(0)
# float32 is computed without tensor cores: ten times the instructions
DTYPES = (torch.bfloat16,) if IS_EMULATED else (torch.bfloat16, torch.float16, torch.float32)
# (N_i, r_i) of every linear, 0 for no adapter; K; format; blocksize; nested maxima
PLANS = (
    (((33, 5), (16, 0), (20, 11)), 256, "nf4", 64, True),
    (((40, 8), (24, 8)), 192, "fp4", 64, False),
    (((50, 1),), 256, "nf4", 128, True),
)
Plan = list[LinearWithAdapter]


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=GENERATOR).to(DEVICE, dtype)


def make_plan(
    linears: tuple[tuple[int, int], ...], k: int, format: str, blocksize: int, nested: bool
) -> tuple[Plan, Plan, int]:
    """The same linears in the layouts of GPUs and of files, and K."""
    repacked, of_files = [], []
    for number, (n, rank) in enumerate(linears):
        weight = weights.quantize_4bit(torch.randn(n, k, generator=GENERATOR) / k**0.5, format, blocksize, nested)
        weight = weight.with_tensors({name: tensor.to(DEVICE) for name, tensor in weight.tensors().items()})
        matrices = (draw(rank, k) / k**0.5, draw(n, rank)) if rank else (None, None)
        repacked.append(LinearWithAdapter(repack(weight), *matrices, 0.75 + number))
        of_files.append(repacked[-1]._replace(weight=weight))
    return repacked, of_files, k


def dequantized(plan: Plan, dtype: torch.dtype) -> list[Tensor]:
    return [weights.dequantize(part.weight, dtype) for part in plan]


def check_block_matrix() -> None:
    for plan, dtype in itertools.product(PLANS, DTYPES):
        repacked, of_files, k = make_plan(*plan)
        assert riding_adapters.can_write(repacked) and not riding_adapters.can_write(of_files)
        sizes = reference.sizes_of(repacked)
        outputs, (rows, columns) = sum(sizes.outputs), sizes.shape
        ours = torch.empty(rows, columns + 3, dtype=dtype, device=DEVICE)
        truth = torch.full_like(ours, float("nan"))
        riding_adapters.write_block_matrix(ours[:, :columns], repacked)
        truth[:outputs, :k] = torch.cat(dequantized(of_files, dtype))
        reference.write_matrices(truth[:, :columns], of_files)
        for part in (slice(None), slice(0, k)), (slice(0, outputs), slice(k, columns)):
            assert torch.equal(ours[part], truth[part]), (plan, dtype)
        assert ours[outputs:, k:].isnan().all() and ours[:, columns:].isnan().all()  # written nowhere else


def check_beside() -> None:
    for (m, widths, rank), dtype in itertools.product(
        ((70, (33, 16, 200), 24), (3, (77,), 8), (20, (5, 64), 40), (0, (9,), 8)), DTYPES
    ):
        wide = [draw(m, width + 1, dtype=dtype)[:, :width] for width in widths]
        narrow = draw(rank, sum(widths), dtype=dtype).T
        mask = torch.rand(m // 10, rank - 3, generator=GENERATOR).to(DEVICE) < 0.5 if m % 10 == 0 and m else None
        for one, used in ((narrow, None), (narrow.contiguous(), mask)):
            left, inner = riding_adapters.beside(wide, one, used)
            exact = reference.beside([part.double() for part in wide], one.double(), used)[1]
            plain = reference.beside(wide, one, used)[1]
            magnitude = reference.beside([part.double().abs() for part in wide], one.double().abs(), used)[1]
            assert torch.equal(left, torch.cat([*wide, inner], dim=1))
            if m:
                assert_sums_are_exact_enough(inner, plain, exact, magnitude, sum(widths))


def check_gradients() -> None:
    for plan, dtype in itertools.product(PLANS, DTYPES):
        parts, _, k = make_plan(*plan)
        sizes = reference.sizes_of(parts)
        for m in (1, 70):
            x, u, v = draw(m, k, dtype=dtype), draw(m, sizes.rank, dtype=dtype), draw(m, sizes.rank, dtype=dtype)
            dys = [draw(m, n + 2, dtype=dtype)[:, :n] for n in sizes.outputs]
            ours = riding_adapters.matrix_gradients(x, dys, u, v, parts)
            wide = [part._replace(lora_A=_double(part.lora_A), lora_B=_double(part.lora_B)) for part in parts]
            given = (x.double(), [dy.double() for dy in dys], u.double(), v.double())
            exact = reference.matrix_gradients(*given, wide)
            magnitude = reference.matrix_gradients(
                given[0].abs(), [dy.abs() for dy in given[1]], given[2].abs(), given[3].abs(), wide
            )
            plain = reference.matrix_gradients(x.float(), [dy.float() for dy in dys], u.float(), v.float(), parts)
            compare(ours, plain, exact, magnitude, (m,) * len(ours))


def check_products() -> None:
    dequant_gemm._path = lambda x: riding_adapters
    for plan, dtype in itertools.product(PLANS, DTYPES):
        repacked, of_files, k = make_plan(*plan)
        sizes, m = reference.sizes_of(repacked), 70
        x, dys = draw(m, k, dtype=dtype), [draw(m, n, dtype=dtype) for n in sizes.outputs]
        ys, u = dequant_gemm.linears_with_adapters(x, repacked)
        dx, v = dequant_gemm.linears_with_adapters_backward(dys, repacked)
        ours = [*ys, dx, *dequant_gemm.matrix_gradients(x, dys, u, v, repacked)]
        exact_w = [weights.dequantize(part.weight).double() for part in of_files]
        plain = apart(x, dys, dequantized(of_files, dtype), of_files, dtype)
        exact = apart(x, dys, exact_w, of_files, torch.float64)
        magnitude = apart(x.abs(), [dy.abs() for dy in dys], [w.abs() for w in exact_w], _abs(of_files), torch.float64)
        outputs = sum(sizes.outputs)
        terms = [k + sizes.rank] * len(ys) + [outputs + sizes.rank] + [m + outputs, m + k] * len(ys)
        compare([None if one is None else one.to(dtype) for one in ours], plain, exact, magnitude, terms)


def apart(x: Tensor, dys: list[Tensor], ws: list[Tensor], plan: Plan, dtype: torch.dtype) -> list[Tensor | None]:
    """y of every linear, dX, and dA and dB of every linear, by one product after another in a dtype"""
    x, dys = x.to(dtype), [dy.to(dtype) for dy in dys]
    ys, dx, gradients = [], torch.zeros_like(x), []
    for dy, w, part in zip(dys, ws, plan, strict=True):
        w = w.to(dtype)
        y, dx_of_it = x @ w.T, dy @ w
        if part.lora_A is None:
            gradients += [None, None]
        else:
            a, b = part.lora_A.to(dtype), part.lora_B.to(dtype)
            u, v = x @ a.T, part.scaling * (dy @ b)
            y, dx_of_it = y + part.scaling * u @ b.T, dx_of_it + v @ a
            gradients += [v.T @ x, part.scaling * (dy.T @ u)]
        ys.append(y)
        dx = dx + dx_of_it
    return [*ys, dx, *gradients]


def compare(ours, plain, exact, magnitude, terms) -> None:
    for *tensors, count in zip(ours, plain, exact, magnitude, terms, strict=True):
        if tensors[0] is None:
            assert all(tensor is None for tensor in tensors)
        else:
            assert_sums_are_exact_enough(*tensors, count)


def _double(matrix: Tensor | None) -> Tensor | None:
    return None if matrix is None else matrix.double()


def _abs(plan: Plan) -> Plan:
    return [
        part if part.lora_A is None else part._replace(lora_A=part.lora_A.abs(), lora_B=part.lora_B.abs())
        for part in plan
    ]


CHECKS = {
    "block_matrix": check_block_matrix,
    "beside": check_beside,
    "gradients": check_gradients,
    "products": check_products,
}

if __name__ == "__main__":
    patch()
    CHECKS[CHECK]()
    print("passed")
