"""Each fused Triton kernel against the plain-torch truth. A script, for TRITON_INTERPRET is read at import:

    TRITON_INTERPRET=1 python fused_checks.py rms_norm cpu        interpreted
    python fused_checks.py rms_norm cuda                          on a GPU

The house rule, for every output: the error against float64 is at most twice that of the reference in the dtype, plus
one ulp at the largest value.
"""

import itertools
import os
import sys

import numpy
import torch
import triton.language as tl
from error_bounds import assert_as_exact_as_plain
from torch import Tensor
from triton.runtime import interpreter

from lowrank.kernels.reference import llama_ops as fused_reference
from lowrank.kernels.triton import cross_entropy, decode_attention, rms_norm, rope, swiglu

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
DEVICE = sys.argv[2]
GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=GENERATOR).to(DEVICE, dtype)


def double(*inputs: Tensor | bool | float | None) -> list[Tensor | bool | float | None]:
    """The inputs, floating tensors in float64."""
    return [x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs]


def check(what: object, ours: tuple[Tensor, ...], plain: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> None:
    for index, (mine, theirs, truth) in enumerate(zip(ours, plain, exact, strict=True)):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape == truth.shape, (what, index)
        if not truth.numel():
            continue
        try:
            assert_as_exact_as_plain(mine, theirs, truth)
        except AssertionError as failure:
            raise AssertionError(what, index) from failure


def check_rms_norm() -> None:
    for (m, d), dtype in itertools.product([(1, 1), (3, 77), (5, 130), (1, 4096), (0, 64)], DTYPES):
        x, residual, dy, dh = (draw(m, d, dtype=dtype) for _ in range(4))
        weight = draw(d, dtype=dtype)
        for added in (None, residual):
            forward = (x, added, weight, 1e-5)
            plain = fused_reference.rms_norm(*forward)
            exact = fused_reference.rms_norm(*double(*forward))
            check((m, d, dtype), rms_norm.rms_norm(*forward), plain, exact)
        for other, with_dweight in itertools.product((None, dh), (False, True)):
            backward = (dy, other, x, fused_reference.rms_norm(x, None, weight, 1e-5)[2], weight, with_dweight)
            plain = fused_reference.rms_norm_backward(*backward)
            exact = fused_reference.rms_norm_backward(*double(*backward))
            check((m, d, dtype, with_dweight), rms_norm.rms_norm_backward(*backward), plain, exact)
    check_shared_sum()


def check_shared_sum() -> None:
    """More rows than programs: a program adds several, the last fewer, some none."""
    rms_norm.PROGRAMS = 4
    x, dy, weight = draw(9, 40, dtype=torch.float32), draw(9, 40, dtype=torch.float32), torch.ones(40).to(DEVICE)
    backward = (dy, None, x, fused_reference.rms_norm(x, None, weight, 1e-5)[2], weight, True)
    plain, exact = fused_reference.rms_norm_backward(*backward), fused_reference.rms_norm_backward(*double(*backward))
    check("shared sum", rms_norm.rms_norm_backward(*backward), plain, exact)


def check_rope() -> None:
    shapes = [(1, 1, 1, 2), (2, 3, 3, 6), (1, 7, 5, 64), (1, 2, 33, 128), (1, 0, 4, 8)]
    for (b, t, heads, h), dtype in itertools.product(shapes, DTYPES):
        x = draw(b, t, heads, h, dtype=dtype)
        angle = torch.rand(b, t, 1, h // 2, generator=GENERATOR).to(DEVICE) * 4096
        cos, sin = angle.cos(), angle.sin()
        for interleaved, inverse in itertools.product((True, False), (True, False)):
            arguments = (x, cos, sin, interleaved, inverse)
            plain, exact = fused_reference.rope(*arguments), fused_reference.rope(*double(*arguments))
            check((b, t, heads, h, dtype, interleaved), (rope.rope(*arguments),), (plain,), (exact,))
            fewer, *rest = arguments  # keys have fewer heads than queries
            pair = rope.rope_pair(x, fewer[:, :, : heads // 2 + 1].contiguous(), *rest)
            check("pair", pair, (plain, plain[:, :, : heads // 2 + 1]), (exact, exact[:, :, : heads // 2 + 1]))


def check_swiglu() -> None:
    for count, dtype in itertools.product([0, 1, 77, swiglu.TILE, 3 * swiglu.TILE - 1], DTYPES):
        dy, up = draw(count, dtype=dtype), draw(count, dtype=dtype)
        gate = 10 * draw(count, dtype=dtype)
        inputs = double(dy, gate, up)
        plain, exact = fused_reference.swiglu(gate, up), fused_reference.swiglu(*inputs[1:])
        check((count, dtype), (swiglu.swiglu(gate, up),), (plain,), (exact,))
        plain, exact = fused_reference.swiglu_backward(dy, gate, up), fused_reference.swiglu_backward(*inputs)
        check((count, dtype), swiglu.swiglu_backward(dy, gate, up), plain, exact)


def check_cross_entropy() -> None:
    block = cross_entropy.BLOCK_V
    for (m, v), dtype in itertools.product([(1, 1), (4, 5), (3, block), (4, block + 1), (3, 2 * block + 77)], DTYPES):
        logits = 8 * draw(m, v, dtype=dtype)
        logits[-1, -1] = 100  # one token nearly certain: its gradient is a small difference
        targets = torch.randint(0, v, (m,), generator=GENERATOR).to(DEVICE)
        targets[-1] = v - 1
        targets[m // 2] = fused_reference.IGNORED
        for with_gradient in (False, True):
            ours, plain, exact = logits.clone(), logits.clone(), logits.double()
            losses = cross_entropy.cross_entropy_(ours, targets, with_gradient)
            plain_losses = fused_reference.cross_entropy_(plain, targets, with_gradient)
            exact_losses = fused_reference.cross_entropy_(exact, targets, with_gradient)
            check((m, v, dtype, with_gradient), (losses, ours), (plain_losses, plain), (exact_losses, exact))
    for unknown in (-1, 5):
        loss = cross_entropy.cross_entropy_(
            draw(2, 5, dtype=torch.float32), torch.tensor([unknown, 0]).to(DEVICE), True
        )
        assert loss.isnan().tolist() == [True, False]


def check_decode_attention() -> None:
    block = decode_attention.BLOCK_S
    shapes = [(1, 1, 1, 1, 2), (2, 4, 2, 5, 6), (2, 2, 2, block + 1, 32), (1, 2, 1, 5 * block - 3, 128)]
    for (b, heads, kv_heads, positions, h), dtype in itertools.product(shapes, DTYPES):
        decode_attention.PROGRAMS = 3 * b * heads  # three splits, the last of them short
        q, window = 4 * draw(b, heads, 1, h, dtype=dtype), (slice(None), slice(None), slice(positions))
        k, v = (draw(b, kv_heads, positions + 3, h, dtype=dtype)[window] for _ in range(2))
        for masks in {1, b}:
            mask = torch.rand(masks, 1, 1, positions, generator=GENERATOR).to(DEVICE) < 0.6
            mask[..., 2 * block : 4 * block] = False  # a split in which nothing is seen
            mask[..., 0] = True
            arguments = (q, k, v, mask)
            plain = fused_reference.decode_attention(*arguments)
            exact = fused_reference.decode_attention(*double(*arguments))
            unseen = ~mask.expand(b, 1, 1, positions).transpose(2, 3)
            lost = [x.masked_fill(unseen, float("nan")) for x in (k, v)]  # of the strides of k, but for the window
            what = (b, heads, kv_heads, positions, h, dtype, masks)
            check(what, (decode_attention.decode_attention(*arguments),), (plain,), (exact,))
            check(what, (decode_attention.decode_attention(q, *lost, mask),), (plain,), (exact,))


def filled_with_nan(make):
    def filled(*arguments, **options):
        made = make(*arguments, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    return filled


def rounded(data, source, target, mode, convert=interpreter._convert_float):
    """Triton 3.9's interpreter cuts float32 off where it makes a bfloat16; a GPU rounds to even, as torch does."""
    if (source, target) == (tl.float32, tl.bfloat16):
        return torch.from_numpy(numpy.ascontiguousarray(data)).bfloat16().view(torch.int16).numpy()
    return convert(data, source, target, mode)


CHECKS = {
    "rms_norm": check_rms_norm,
    "rope": check_rope,
    "swiglu": check_swiglu,
    "cross_entropy": check_cross_entropy,
    "decode_attention": check_decode_attention,
}

if __name__ == "__main__":
    # An element that is not written is seen.
    torch.empty, torch.empty_like = filled_with_nan(torch.empty), filled_with_nan(torch.empty_like)
    if os.environ.get("TRITON_INTERPRET") == "1":
        interpreter._convert_float = rounded
    CHECKS[sys.argv[1]]()
    print("within the rule")
