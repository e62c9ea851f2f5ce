"""mma and wgmma, against products of numpy and layouts written down from the PTX manual's figures."""

import numpy as np
import pytest
from ptx.arithmetic import narrow, widen

RNG = np.random.default_rng(0)


def small(*shape: int) -> np.ndarray:
    """Whole numbers, exact in every dtype and sum."""
    return RNG.integers(-4, 5, shape).astype(np.float32)


@pytest.mark.parametrize("type", ["bf16", "f16"])
def test_a_product_of_a_warp(run, type) -> None:
    a, b, c = small(16, 16), small(16, 8), small(16, 8)
    words = np.zeros((32, 10), np.uint32)  # of a lane: four of A, two of B, four of C
    for lane in range(32):
        g, t = divmod(lane, 4)

        def pair(x, y):
            low, high = narrow(np.float32([x, y]), type)
            return int(low) | int(high) << 16

        words[lane, 0] = pair(a[g, 2 * t], a[g, 2 * t + 1])
        words[lane, 1] = pair(a[g + 8, 2 * t], a[g + 8, 2 * t + 1])
        words[lane, 2] = pair(a[g, 2 * t + 8], a[g, 2 * t + 9])
        words[lane, 3] = pair(a[g + 8, 2 * t + 8], a[g + 8, 2 * t + 9])
        words[lane, 4] = pair(b[2 * t, g], b[2 * t + 1, g])
        words[lane, 5] = pair(b[2 * t + 8, g], b[2 * t + 9, g])
        words[lane, 6:] = np.float32([c[g, 2 * t], c[g, 2 * t + 1], c[g + 8, 2 * t], c[g + 8, 2 * t + 1]]).view(
            np.uint32
        )
    load = "mul.wide.u32 %q1, %r90, 40; add.s64 %q2, %q90, %q1;"
    load += "".join(f"ld.global.b32 %r{i}, [%q2 + {4 * i}];" for i in range(10))
    product = f"mma.sync.aligned.m16n8k16.row.col.f32.{type}.{type}.f32 {{%r10,%r11,%r12,%r13}}, {{%r0,%r1,%r2,%r3}}, "
    result = run(load + product + "{%r4,%r5}, {%r6,%r7,%r8,%r9};", {0: words.reshape(-1)})
    d = np.stack([result.register(f"%r{i}", np.float32) for i in range(10, 14)], axis=1)
    expected = a @ b + c
    for lane in range(32):
        g, t = divmod(lane, 4)
        places = [(g, 2 * t), (g, 2 * t + 1), (g + 8, 2 * t), (g + 8, 2 * t + 1)]
        assert d[lane].tolist() == [expected[place] for place in places]


def test_the_sum_of_a_product_is_rounded_once(run) -> None:
    """2^24 + 16 ones: each by itself would be lost in float32."""
    one = 0x3F803F80
    code = f"mov.b32 %r1, {one}; mov.b32 %r2, 0x4B800000;"  # 2^24
    code += "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r10,%r11,%r12,%r13}, {%r1,%r1,%r1,%r1}, {%r1,%r1}, "
    result = run(code + "{%r2,%r2,%r2,%r2};")
    assert (result.register("%r10", np.float32) == 2.0**24 + 16).all()


def swizzled(matrix: np.ndarray, width: int) -> np.ndarray:
    """Rows of `width` bytes, each 16-byte part of row r at the place that r % (width / 16) is xored into."""
    parts = width // 16
    rows = matrix.view(np.uint8).reshape(len(matrix), parts, 16)
    placed = np.zeros_like(rows)
    for row in range(len(matrix)):
        line = row * width // 128  # the xor counts lines of 128 bytes
        for part in range(parts):
            placed[row, part ^ (line % parts)] = rows[row, part]
    return placed.reshape(-1)


WGMMA = "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%r10,%r11,%r12,%r13}, "
FILL = (
    "shl.b32 %r1, %r90, 4; mov.b32 %r2, global_smem; add.s32 %r3, %r2, %r1; mul.wide.u32 %q1, %r90, 16; "
    "add.s64 %q2, %q90, %q1; setp.lt.u32 %p1, %r90, {count}; "
    "@%p1 ld.global.v4.b32 {{%r4,%r5,%r6,%r7}}, [%q2]; @%p1 st.shared.v4.b32 [%r3], {{%r4,%r5,%r6,%r7}}; "
)
FENCE = "fence.proxy.async.shared::cta; bar.sync 0;"


def descriptor(start: int, stride: int, swizzle: int) -> int:
    return start >> 4 | 1 << 16 | stride >> 4 << 32 | swizzle << 62


@pytest.mark.parametrize(("width", "swizzle"), [(128, 1), (64, 2), (32, 3)])
def test_a_product_of_four_warps_from_shared_memory(run, width, swizzle) -> None:
    columns = width // 2
    a, b = small(64, columns), small(8, columns)
    a[:, 16:], b[:, 16:] = 99, 99  # what is not of the product
    bits = [narrow(matrix, "bf16").reshape(matrix.shape) for matrix in (a, b)]
    data = np.concatenate([swizzled(matrix, width) for matrix in bits])
    place_b = 64 * width
    parts = len(data) // 16
    code = ""
    for first in range(0, parts, 128):  # 16 bytes a thread
        fill, offset = FILL.format(count=min(128, parts - first)), 16 * first
        code += fill.replace("[%q2]", f"[%q2 + {offset}]").replace("[%r3]", f"[%r3 + {offset}]")
    code += FENCE + "mov.b32 %r10, 0x3F800000; mov.b32 %r11, 0; mov.b32 %r12, 0; mov.b32 %r13, 0;"
    code += f"mov.b64 %q5, {descriptor(0, 8 * width, swizzle)}; mov.b64 %q6, {descriptor(place_b, 8 * width, swizzle)};"
    code += WGMMA + "%q5, %q6, 1, 1, 1, 0, 0; wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;"
    result = run(code, {0: data}, threads=128, shared=len(data))
    expected = a[:, :16] @ b[:, :16].T
    d = np.stack([result.register(f"%r{i}", np.float32) for i in range(10, 14)], axis=1)
    for thread in range(128):
        warp, lane = divmod(thread, 32)
        g, t = divmod(lane, 4)
        row = 16 * warp + g
        places = [(row, 2 * t), (row, 2 * t + 1), (row + 8, 2 * t), (row + 8, 2 * t + 1)]
        wanted = [expected[place] for place in places]
        wanted[0] += 1  # what was in the register before
        assert d[thread].tolist() == wanted


def right_operand() -> tuple[np.ndarray, str]:
    b = narrow(small(8, 64), "bf16").reshape(8, 64)
    return swizzled(b, 128), f"mov.b64 %q6, {descriptor(0, 1024, 1)}; mov.b32 %r20, 0x3F803F80;"


LEFT = "{%r20,%r20,%r20,%r20}, %q6, 0, 1, 1, 0;"


def test_a_left_operand_in_registers_and_sums_that_begin_anew(run) -> None:
    data, values = right_operand()
    code = FILL.format(count=64) + FENCE + values + "mov.b32 %r10, 0x7F800000;" + WGMMA + LEFT
    code += "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;"
    result = run(code, {0: data}, threads=128, shared=1024)
    unswizzled = np.stack([data.reshape(8, 8, 16)[r, [p ^ r for p in range(8)]].reshape(-1) for r in range(8)])
    sums = widen(unswizzled.view(np.uint16), "bf16")[:, :16].sum(1)
    assert (result.register("%r10", np.float32) == sums[2 * (np.arange(128) % 4)]).all()


def test_a_product_does_not_land_before_it_is_waited_for(run) -> None:
    data, values = right_operand()
    code = FILL.format(count=64) + FENCE + values + "mov.b32 %r10, 0x40A00000;" + WGMMA + LEFT
    result = run(code + "wgmma.commit_group.sync.aligned; mov.b32 %r30, %r10;", {0: data}, threads=128, shared=1024)
    assert (result.register("%r30", np.float32) == 5).all()


def test_operands_stay_until_the_product_is_over(run) -> None:
    data, values = right_operand()
    code = FILL.format(count=64) + FENCE + values + WGMMA + LEFT + "wgmma.commit_group.sync.aligned; bar.sync 0;"
    with pytest.raises(MemoryError, match="is written while a product reads it"):
        run(code + "@%p1 st.shared.b32 [%r3], 0;", {0: data}, threads=128, shared=1024)
    run(code + "wgmma.wait_group.sync.aligned 0; @%p1 st.shared.b32 [%r3], 0;", {0: data}, threads=128, shared=1024)


def test_a_product_behind_a_store_without_a_fence_is_seen(run) -> None:
    data, values = right_operand()
    with pytest.raises(MemoryError, match="with no fence behind its store"):
        run(FILL.format(count=64) + "bar.sync 0;" + values + WGMMA + LEFT, {0: data}, threads=128, shared=1024)
    with pytest.raises(MemoryError, match="race"):
        run(FILL.format(count=64) + "fence.proxy.async;" + values + WGMMA + LEFT, {0: data}, threads=128, shared=1024)
