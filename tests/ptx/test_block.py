"""Reading PTX, guards, branches, and what is refused."""

import numpy as np
import pytest
from ptx.block import Block, Unsupported
from ptx.memory import GlobalMemory
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


def test_threads_that_part_ways_meet_again_behind_the_branch(run):
    result = run("setp.eq.u32 %p1, %r90, 5; mov.b32 %r1, 0; @%p1 bra $out; mov.b32 %r1, 1; $out: add.s32 %r1, %r1, 2;")
    assert result.register("%r1", np.int32).tolist() == [3] * 5 + [2] + [3] * 26


def test_each_thread_leaves_a_loop_at_its_own_turn(run):
    result = run(
        "mov.b32 %r1, 0; $again: add.s32 %r1, %r1, 1; setp.le.u32 %p1, %r1, %r90; @%p1 bra $again; bar.sync 0;"
    )
    assert result.register("%r1", np.int32).tolist() == list(range(1, 33))


def test_a_thread_that_returns_early_is_not_waited_for(run):
    result = run("mov.b32 %r1, 0; setp.eq.u32 %p1, %r90, 5; @%p1 ret; bar.sync 0; mov.b32 %r1, 1;")
    assert result.register("%r1", np.int32).tolist() == [1] * 5 + [0] + [1] * 26


def test_a_barrier_that_some_threads_pass_by_is_refused(run):
    with pytest.raises(Unsupported, match="passed a barrier that others wait at"):
        run("setp.eq.u32 %p1, %r90, 0; @%p1 bra $out; bar.sync 0; $out: mov.b32 %r1, 1;")


def test_shared_memory_begins_where_a_launch_says():
    code = """
        .extern .shared .align 16 .b8 room[];
        .visible .entry kernel() .maxntid 32, 1, 1 .minnctapersm 2
        {
            .reg .b32 %r<9>; .reg .b64 %q<9>;
            mov.u32 %r0, %tid.x; mov.u32 %r1, room; mov.u64 %q1, room; shl.b32 %r2, %r0, 2; add.s32 %r2, %r1, %r2;
            st.shared.b32 [%r2], %r0; bar.sync 0; ld.shared.b32 %r3, [room+12];
            ret;
        }
    """
    block = Block(Program(code), GlobalMemory(), [], shared=128, shared_start=1024)
    block.run()
    found = {name: set(block.registers[name].tolist()) for name in ("%r1", "%q1", "%r3")}
    assert found == {"%r1": {1024}, "%q1": {1024}, "%r3": {3}}


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
