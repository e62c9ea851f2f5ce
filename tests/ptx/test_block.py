"""Reading PTX, guards, branches, and what is refused."""

import numpy as np
import pytest
from ptx.block import Unsupported
from ptx.program import Program


def test_a_guard_keeps_threads_out(run):
    result = run("setp.lt.u32 %p1, %r90, 3; mov.b32 %r1, 0; @%p1 mov.b32 %r1, 7; @!%p1 mov.b32 %r1, 8;")
    assert result.register("%r1", np.int32).tolist() == [7] * 3 + [8] * 29


def test_a_loop_ends_when_its_condition_does(run):
    result = run(
        """
        mov.b32 %r1, 0;
        $L__again:
        add.s32 %r1, %r1, 3;
        setp.lt.s32 %p1, %r1, 10;
        @%p1 bra $L__again;
        """
    )
    assert (result.register("%r1", np.int32) == 12).all()


def test_threads_that_part_ways_are_refused(run):
    with pytest.raises(Unsupported, match=r"kernel: threads part ways: @%p1 bra \$out"):
        run("setp.eq.u32 %p1, %r90, 0; @%p1 bra $out; mov.b32 %r1, 1; $out:")


def test_an_unknown_instruction_is_named(run):
    with pytest.raises(Unsupported, match=r"tex\.2d"):
        run("tex.2d %r1, %r2;")


def test_the_text_is_taken_apart():
    program = Program(
        """
        .visible .entry some_kernel(
            .param .u64 .ptr .global .align 1 some_kernel_param_0,
            .param .u32 some_kernel_param_1
        )
        .reqntid 64, 1, 1
        {
            .reg .pred %p<2>; .reg .b32 %r<3>;
            .loc 1 27 3
            { // begin inline asm
                .reg .b16 local; @!%p1 ld.global.v2.b32 { %r1, %r2 }, [ %r1 + 16 ];
            }
        $end: /* nothing
                 more */ ret;
        }
        .section .debug_info { .b8 1 }
        """
    )
    assert (program.name, program.parameters, program.threads) == ("some_kernel", [64, 32], 64)
    load, end = program.instructions
    assert (load.guard, load.is_negated, load.parts) == ("%p1", True, ("ld", "global", "v2", "b32"))
    assert load.operands == ("{ %r1, %r2 }", "[ %r1 + 16 ]") and end.parts == ("ret",)
    assert program.labels == {"$end": 1} and program.width("local") == 16 and program.width("%r7") == 32


def test_a_parameter_is_found_by_its_address_too(run):
    result = run("mov.b32 %r1, kernel_param_0; ld.param.b64 %q1, [%r1]; sub.s64 %q2, %q1, %q90;")
    assert not result.register("%q2", np.int64).any()
