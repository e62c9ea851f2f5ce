"""Instructions on registers, against results computed by hand from the PTX manual's definitions."""

import math

import numpy as np
import pytest
from ptx import arithmetic

NAN = float("nan")


@pytest.mark.parametrize(
    ("code", "type", "inputs", "expected"),
    [
        ("add.s32 %d, %a, %b;", "s32", ([2**31 - 1, -5], [1, 3]), [-(2**31), -2]),
        ("sub.s64 %d, %a, %b;", "s64", ([0], [1]), [-1]),
        ("neg.s32 %d, %a;", "s32", ([7, -(2**31)],), [-7, -(2**31)]),
        ("mul.lo.s32 %d, %a, %b;", "s32", ([2**30, -3], [4, 5]), [0, -15]),
        ("mul.hi.u32 %d, %a, %b;", "u32", ([2**31, 2**32 - 1], [6, 2**32 - 1]), [3, 2**32 - 2]),
        ("mul.hi.s32 %d, %a, %b;", "s32", ([-1], [1]), [-1]),
        ("mad.lo.s32 %d, %a, %b, %c;", "s32", ([3], [4], [-5]), [7]),
        ("div.s32 %d, %a, %b;", "s32", ([-7, 7], [2, -2]), [-3, -3]),
        ("rem.s32 %d, %a, %b;", "s32", ([-7, 7], [2, -2]), [-1, 1]),
        ("min.s32 %d, %a, %b;", "s32", ([-1], [1]), [-1]),
        ("max.u32 %d, %a, %b;", "u32", ([2**32 - 1], [1]), [2**32 - 1]),
        ("shl.b32 %d, %a, %b;", "u32", ([1, 1], [31, 32]), [2**31, 0]),
        ("shr.u32 %d, %a, %b;", "u32", ([2**31, 5], [31, 40]), [1, 0]),
        ("shr.s32 %d, %a, %b;", "s32", ([-8, -8], [2, 99]), [-2, -1]),
        ("and.b32 %d, %a, %b;", "u32", ([12], [10]), [8]),
        ("or.b32 %d, %a, %b;", "u32", ([12], [10]), [14]),
        ("xor.b32 %d, %a, %b;", "u32", ([12], [10]), [6]),
        ("not.b32 %d, %a;", "u32", ([0],), [2**32 - 1]),
        ("bfe.u32 %d, %a, 4, 8;", "u32", ([0xABCD],), [0xBC]),
        ("bfe.s32 %d, %a, 4, 4;", "s32", ([0xF0, 0x70],), [-1, 7]),
        ("bfi.b32 %d, %a, %b, 8, 4;", "u32", ([0xAB], [0x12345678]), [0x12345B78]),
        ("cvta.to.global.u64 %d, %a;", "u64", ([1 << 40],), [1 << 40]),
        # Bytes 4 and up are those of the second operand; a nibble with its top bit gives eight times the byte's sign.
        ("prmt.b32 %d, %a, %b, 0x7410;", "u32", ([0x33221100], [0x77665544]), [0x77441100]),
        # From the lowest nibble up: the sign of byte 0, that of byte 7, byte 0 twice.
        ("prmt.b32 %d, %a, %b, 0xF8;", "u32", ([0x80], [0x7F000000]), [0x808000FF]),
        ("lop3.b32 %d, %a, %b, %c, 0xE8;", "u32", ([0b0011], [0b0101], [0b1001]), [0b0001]),  # the majority
        ("shf.l.wrap.b32 %d, %a, %b, 8;", "u32", ([0x12345678], [0x9ABCDEF0]), [0xBCDEF012]),
        ("shf.r.wrap.b32 %d, %a, %b, 8;", "u32", ([0x12345678], [0x9ABCDEF0]), [0xF0123456]),
        ("selp.b32 %d, %a, %b, 1;", "u32", ([5], [6]), [5]),
        ("selp.b32 %d, %a, %b, 0;", "u32", ([5], [6]), [6]),
    ],
)
def test_integers(computed, code, type, inputs, expected) -> None:
    assert computed(code, type, *inputs) == expected


@pytest.mark.parametrize(
    ("code", "type", "inputs", "expected"),
    [
        ("add.f32 %d, %a, %b;", "f32", ([1.0, 2.0**24], [2.0**-24, 1.0]), [1.0, 2.0**24]),  # ties to even
        ("add.f32 %d, %a, %b;", "f32", ([1 + 2.0**-23], [2.0**-24]), [1 + 2.0**-22]),
        ("mul.f32 %d, %a, %b;", "f32", ([3.0, math.inf], [-0.5, 2.0]), [-1.5, math.inf]),
        # (1 + 2^-12)^2 - 1 = 2^-11 + 2^-24: a product rounded before the sum would lose the last part.
        ("fma.rn.f32 %d, %a, %b, %c;", "f32", ([1 + 2.0**-12], [1 + 2.0**-12], [-1.0]), [2.0**-11 + 2.0**-24]),
        ("div.rn.f32 %d, %a, %b;", "f32", ([1.0, 1.0, -1.0], [4.0, 0.0, 0.0]), [0.25, math.inf, -math.inf]),
        ("div.rn.f32 %d, %a, %b;", "f32", ([1.0], [3.0]), [float(np.float32(1 / 3))]),
        ("sqrt.rn.f32 %d, %a;", "f32", ([2.0],), [float(np.float32(2**0.5))]),
        ("max.f32 %d, %a, %b;", "f32", ([NAN, 1.0], [2.0, 3.0]), [2.0, 3.0]),
        ("min.f32 %d, %a, %b;", "f32", ([NAN, 1.0], [2.0, 3.0]), [2.0, 1.0]),
        ("abs.f32 %d, %a;", "f32", ([-2.5],), [2.5]),
        ("add.ftz.f32 %d, %a, %b;", "f32", ([2.0**-140, 2.0**-126], [0.0, -(2.0**-127)]), [0.0, 2.0**-126]),
        ("ex2.approx.f32 %d, %a;", "f32", ([3.0, -1.0],), [8.0, 0.5]),
        ("rcp.approx.f32 %d, %a;", "f32", ([4.0],), [0.25]),
    ],
)  # fmt: skip
def test_floats(computed, code, type, inputs, expected) -> None:
    assert computed(code, type, *inputs) == expected


def test_a_nan_is_spread_where_the_instruction_says_so(computed) -> None:
    assert math.isnan(computed("max.NaN.f32 %d, %a, %b;", "f32", [NAN], [2.0])[0])


def test_a_sum_that_float64_would_round_to_a_tie_is_rounded_once() -> None:
    odd = np.float32([2.0**30 + 2.0**7])  # its neighbours are 2^7 away, and even
    middle = arithmetic.fused(np.float32([2.0**6]), np.float32([1.0]), odd)
    assert middle[0] == 2.0**30 + 2.0**8  # to even, up
    # (1 - 2^-15) (1 + 2^-15) 2^6 = 2^6 - 2^-24, below the middle; added to 2^30 in float64 it is the middle
    factor, other = np.float32([1 - 2.0**-15]), np.float32([2.0**6 * (1 + 2.0**-15)])
    assert odd.astype(np.float64)[0] + float(factor[0]) * float(other[0]) == 2.0**30 + 2.0**7 + 2.0**6
    assert arithmetic.fused(factor, other, odd)[0] == 2.0**30 + 2.0**7


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        ("lt", [True, False, False, False]),
        ("le", [True, True, False, False]),
        ("eq", [False, True, False, False]),
        ("ne", [True, False, True, False]),
        ("ltu", [True, False, False, True]),
        ("neu", [True, False, True, True]),
        ("num", [True, True, True, False]),
        ("nan", [False, False, False, True]),
    ],
)
def test_comparisons_of_floats(computed, comparison, expected) -> None:
    code = f"setp.{comparison}.f32 %d, %a, %b;"
    assert computed(code, "f32", [1.0, 2.0, 3.0, NAN], [2.0, 2.0, 2.0, 2.0], result="pred") == expected


def test_comparisons_of_integers_know_signs(computed) -> None:
    assert computed("setp.lt.s32 %d, %a, %b;", "s32", [-1], [0], result="pred") == [True]
    assert computed("setp.lt.u32 %d, %a, %b;", "s32", [-1], [0], result="pred") == [False]


@pytest.mark.parametrize(
    ("code", "type", "to", "inputs", "expected"),
    [
        ("cvt.rn.bf16.f32 %d, %a;", "f32", "bf16", [1.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8], [0x3F80, 0x3F80, 0x3F82]),
        ("cvt.rn.f16.f32 %d, %a;", "f32", "f16", [1.0, 1 + 2.0**-11, 65520.0, 2.0**-25], [0x3C00, 0x3C00, 0x7C00, 0]),
        ("cvt.f32.bf16 %d, %a;", "bf16", "f32", [0x3F80, 0xC000], [1.0, -2.0]),
        ("cvt.f32.f16 %d, %a;", "f16", "f32", [0x3C00, 0x0001], [1.0, 2.0**-24]),
        ("cvt.rn.f32.s32 %d, %a;", "s32", "f32", [-3, 2**24 + 1], [-3.0, 2.0**24]),
        ("cvt.rzi.s32.f32 %d, %a;", "f32", "s32", [-1.9, 1.9, 1e20], [-1, 1, 2**31 - 1]),
        ("cvt.rmi.f32.f32 %d, %a;", "f32", "f32", [-1.5, 1.5], [-2.0, 1.0]),
        ("cvt.rni.f32.f32 %d, %a;", "f32", "f32", [0.5, 1.5], [0.0, 2.0]),
        ("cvt.s64.s32 %d, %a;", "s32", "s64", [-1], [-1]),
        ("cvt.u64.u32 %d, %a;", "u32", "u64", [2**32 - 1], [2**32 - 1]),
        ("cvt.u16.u32 %d, %a;", "u32", "u16", [0x12345], [0x2345]),
    ],
)  # fmt: skip
def test_conversions(computed, code, type, to, inputs, expected) -> None:
    assert computed(code, type, inputs, result=to) == expected


def test_two_floats_are_packed_with_the_first_one_high(computed) -> None:
    assert computed("cvt.rn.bf16x2.f32 %d, %a, %b;", "f32", [1.0], [-2.0], result="b32") == [0x3F80_C000]


def test_pairs_are_added_each_by_itself(run) -> None:
    result = run("mov.b32 %r1, 0x3F803F80; mov.b32 %r2, 0x3F80C000; add.bf16x2 %r3, %r1, %r2;")
    assert hex(result.register("%r3", np.uint32)[0]) == "0x4000bf80"


def test_registers_are_taken_apart_and_put_together(run) -> None:
    result = run("mov.b32 {%h1, %h2}, 0x12345678; mov.b32 %r1, {%h2, %h1}; mov.b64 %q1, {%r1, 7};")
    assert result.register("%r1", np.uint32)[0] == 0x56781234
    assert result.register("%q1", np.uint64)[0] == 7 << 32 | 0x56781234


def test_a_warp_may_exchange_registers_by_itself(run) -> None:
    result = run(
        """
        mov.b32 %r1, 0; shr.u32 %r2, %r90, 5; setp.eq.u32 %p1, %r2, 1;
        @%p1 bra $out; shfl.sync.bfly.b32 %r1, %r90, 1, 31, -1; $out:
        """,
        threads=64,
    )
    lane = np.arange(64)
    assert (result.register("%r1", np.int32) == np.where(lane < 32, lane ^ 1, 0)).all()


def test_shuffles(run) -> None:
    result = run(
        """
        shfl.sync.bfly.b32 %r1, %r90, 1, 31, -1;
        shfl.sync.idx.b32 %r2, %r90, 5, 31, -1;
        shfl.sync.up.b32 %r3|%p1, %r90, 2, 0, -1;
        shfl.sync.down.b32 %r4, %r90, 30, 31, -1;
        shfl.sync.bfly.b32 %r5, %r90, 8, 0x1807, -1;   // segments of eight lanes: behind one's own is nothing
        redux.sync.max.s32 %r6, %r90, -1;
        redux.sync.add.s32 %r7, %r90, 0xffffffff;
        """,
        threads=64,
    )
    lane = np.arange(64)
    assert (result.register("%r1", np.int32) == lane ^ 1).all()
    assert (result.register("%r2", np.int32) == np.where(lane < 32, 5, 37)).all()
    assert (result.register("%r3", np.int32) == np.where(lane % 32 < 2, lane, lane - 2)).all()
    assert (result.register("%p1", bool) == (lane % 32 >= 2)).all()
    assert (result.register("%r4", np.int32) == np.where(lane % 32 < 2, lane + 30, lane)).all()
    assert (result.register("%r5", np.int32) == np.where(lane & 8, lane - 8, lane)).all()
    assert (result.register("%r6", np.int32) == np.where(lane < 32, 31, 63)).all()
    assert (result.register("%r7", np.int32) == np.where(lane < 32, 496, 1520)).all()


def test_16_bit_floats_are_rounded_once_from_float64() -> None:
    # 1 + 2^-8 + 2^-40 is above the tie between two bfloat16; as float32 it is the tie itself
    assert arithmetic.narrow(np.float64([1 + 2.0**-8 + 2.0**-40]), "bf16")[0] == 0x3F81
    assert arithmetic.narrow(np.float32([np.nan]), "bf16")[0] == 0x7FFF
