"""Faults that a GPU does not forgive are seen: places outside, crooked ones, races, copies and products under way."""

import re

import numpy as np
import pytest

ADDRESS = "shl.b32 %r1, %r90, 2; mov.b32 %r2, global_smem; add.s32 %r3, %r2, %r1;"  # a word a thread
NEIGHBOUR = "xor.b32 %r4, %r3, 4;"
BETWEEN_WARPS = "xor.b32 %r4, %r3, 128;"


def refused(run, message, code, **options):
    with pytest.raises(MemoryError, match=message):
        run(code, **options)


def test_loads_and_stores(run):
    data, out = np.arange(64, dtype=np.uint16), np.zeros(32, np.uint32)
    run(
        "mul.wide.u32 %q1, %r90, 4; add.s64 %q2, %q90, %q1; ld.global.v2.b16 {%h1, %h2}, [%q2]; "
        "mov.b32 %r1, {%h2, %h1}; st.global.b32 [%q2 + 4096], {%r1};",
        {0: data, 1: out},
    )
    assert out.tolist() == [(2 * i << 16) | 2 * i + 1 for i in range(32)]


def test_global_memory_outside_of_every_tensor(run):
    load = "mul.wide.u32 %q1, %r90, 4; add.s64 %q2, %q90, %q1; ld.global.b32 %r1, [%q2{}];"
    data = {0: np.zeros(32, np.uint32)}
    run(load.format(""), data)
    refused(run, "4 bytes at byte 128 of tensor 0, which has 128", load.format(" + 4"), data=data)
    refused(run, "below every tensor", load.format(" + -4"), data=data)
    refused(
        run, "4 bytes at byte 2 of tensor 0 are not aligned", load.format(" + 2"), data={0: np.zeros(34, np.uint32)}
    )


def test_what_a_mask_takes_out_is_not_read(run):
    run("setp.eq.u32 %p1, %r90, 99; @%p1 ld.global.b32 %r1, [%q90 + 999];")


def test_shared_memory_outside_and_crooked(run):
    store = ADDRESS + "st.shared.b32 [%r3{}], %r90;"
    run(store.format(""), shared=128)
    refused(run, "4 bytes at byte 128 of shared memory, which has 128", store.format(" + 4"), shared=128)
    refused(run, "4 bytes at byte 2 of shared memory are not aligned", store.format(" + 2"), shared=256)


def test_a_byte_that_was_never_written_is_not_read(run):
    refused(
        run, "byte 0 of shared memory is read and was never written", ADDRESS + "ld.shared.b32 %r5, [%r3];", shared=128
    )


def test_a_barrier_orders_threads(run):
    store, load = "st.shared.b32 [%r3], %r90;", "ld.shared.b32 %r5, [%r4];"
    result = run(ADDRESS + BETWEEN_WARPS + store + "bar.sync 0;" + load, threads=64, shared=256)
    assert (result.register("%r5", np.int32) == np.arange(64) ^ 32).all()
    message = "race: byte 128 of shared memory is read by thread 0 and was written by thread 32, with no barrier"
    refused(run, message, ADDRESS + BETWEEN_WARPS + store + load, threads=64, shared=256)
    refused(run, "race", ADDRESS + BETWEEN_WARPS + store + "bar.warp.sync -1;" + load, threads=64, shared=256)
    refused(run, "race", ADDRESS + NEIGHBOUR + store + load, threads=64, shared=256)
    run(ADDRESS + NEIGHBOUR + store + "bar.warp.sync -1;" + load, threads=64, shared=256)


def test_a_write_after_a_read_of_another_thread_is_a_race(run):
    start = ADDRESS + NEIGHBOUR + "st.shared.b32 [%r3], 1; bar.sync 0; ld.shared.b32 %r5, [%r4];"
    refused(run, "written by thread 0 and was read by thread 1", start + "st.shared.b32 [%r3], 2;", shared=128)
    run(start + "bar.sync 0; st.shared.b32 [%r3], 2;", shared=128)
    run(start + "st.shared.b32 [%r4], 2;", shared=128)  # what oneself has read


def test_several_readers_are_all_waited_for(run):
    everyone = ADDRESS + "st.shared.b32 [%r3], 1; bar.sync 0; ld.shared.b32 %r5, [%r2];"
    first = "setp.eq.u32 %p1, %r90, 0; @%p1 st.shared.b32 [%r2], 2;"
    refused(run, "written by thread 0 and was read by several threads", everyone + first, shared=128)
    run(everyone + "bar.sync 0;" + first, shared=128)


def test_two_threads_may_write_the_same_to_one_place_and_nothing_else(run):
    run(ADDRESS + "st.shared.b32 [%r2], 7;", shared=128)
    refused(run, "two threads write different bytes", ADDRESS + "st.shared.b32 [%r2], %r90;", shared=128)


COPY = ADDRESS + "mul.wide.u32 %q1, %r90, 4; add.s64 %q2, %q90, %q1; cp.async.ca.shared.global [%r3], [%q2], 4{};"
DATA = {0: np.arange(32, dtype=np.uint32)}


def test_a_copy_is_there_when_it_was_waited_for(run):
    ended = COPY.format("") + "cp.async.commit_group; cp.async.wait_group 0;"
    result = run(ended + "ld.shared.b32 %r5, [%r3];", DATA, shared=128)
    assert (result.register("%r5", np.int32) == np.arange(32)).all()
    early = COPY.format("") + "cp.async.commit_group; cp.async.wait_group 1; ld.shared.b32 %r5, [%r3];"
    refused(run, "byte 0 of shared memory is read while a copy to it is under way", early, data=DATA, shared=128)
    refused(run, "written while a copy", COPY.format("") + "st.shared.b32 [%r3], 1;", data=DATA, shared=128)
    # another thread's copy needs a barrier as well
    refused(run, "race", ended + NEIGHBOUR + "ld.shared.b32 %r5, [%r4];", data=DATA, shared=128)
    run(ended + "bar.sync 0;" + NEIGHBOUR + "ld.shared.b32 %r5, [%r4];", DATA, shared=128)


def test_of_two_groups_of_copies_the_first_can_be_waited_for(run):
    both = (
        COPY.format("")
        + "cp.async.commit_group; cp.async.ca.shared.global [%r3 + 128], [%q2], 4; cp.async.commit_group;"
    )
    run(both + "cp.async.wait_group 1; ld.shared.b32 %r5, [%r3];", DATA, shared=256)
    refused(run, "under way", both + "cp.async.wait_group 1; ld.shared.b32 %r5, [%r3 + 128];", data=DATA, shared=256)


def test_a_copy_of_no_bytes_writes_zeros_and_reads_nothing(run):
    result = run(
        COPY.format(", 0").replace("%q2]", "%q2 + 9999]") + "cp.async.wait_all; ld.shared.b32 %r5, [%r3];", shared=128
    )
    assert (result.register("%r5", np.int32) == 0).all()


def test_a_copy_over_what_another_thread_may_still_read_is_a_race(run):
    code = ADDRESS + NEIGHBOUR + "st.shared.b32 [%r3], 1; bar.sync 0; ld.shared.b32 %r5, [%r4];"
    refused(run, "copied to by thread 0 and was read by thread 1", code + COPY.format(""), data=DATA, shared=128)


def test_matrices_are_loaded_and_stored_by_rows(run):
    numbers = np.arange(64, dtype=np.uint16).reshape(8, 8)
    words = numbers.view(np.uint32).reshape(-1)
    fill = (
        ADDRESS
        + "mul.wide.u32 %q1, %r90, 4; add.s64 %q2, %q90, %q1; ld.global.b32 %r6, [%q2]; st.shared.b32 [%r3], %r6;"
    )
    rows = "and.b32 %r7, %r90, 7; shl.b32 %r7, %r7, 4; bar.sync 0;"
    load = "ldmatrix.sync.aligned.m8n8.x1{}.shared.b16 {{%r8}}, [%r7];"
    plain = run(fill + rows + load.format(""), {0: words}, shared=128).register("%r8", np.uint16).reshape(32, 2)
    turned = run(fill + rows + load.format(".trans"), {0: words}, shared=128).register("%r8", np.uint16).reshape(32, 2)
    for lane in range(32):
        row, column = lane // 4, 2 * (lane % 4)
        assert plain[lane].tolist() == [numbers[row, column], numbers[row, column + 1]]
        assert turned[lane].tolist() == [numbers[column, row], numbers[column + 1, row]]
    back = "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r7 + 128], {%r8}; bar.sync 0; ld.shared.b32 %r9, [%r3 + 128];"
    again = run(fill + rows + load.format("") + back, {0: words}, shared=256).register("%r9", np.uint32)
    assert np.array_equal(again, words)


def test_the_message_names_the_instruction(run):
    with pytest.raises(MemoryError, match=re.escape("kernel: st.shared.b32 [%r3], 1: 4 bytes at byte 0")):
        run(ADDRESS + "st.shared.b32 [%r3], 1;", shared=0)


def test_an_atomic_addition_gives_each_thread_what_was_there_before(run):
    counter = np.array([5], np.uint32)
    result = run("atom.global.gpu.acq_rel.add.u32 %r1, [%q90], 2;", {0: counter})
    assert result.register("%r1", np.uint32).tolist() == [5 + 2 * i for i in range(32)] and counter[0] == 5 + 64
    run("setp.eq.u32 %p1, %r90, 3; @%p1 atom.global.gpu.acq_rel.add.u32 %r1, [%q90], 1;", {0: counter})
    assert counter[0] == 70


def test_traffic_is_sectors_of_32_bytes_once_for_reading_and_once_for_writing(run):
    load = "mul.wide.u32 %q1, %r90, 4; add.s64 %q2, %q90, %q1; ld.global.b32 %r1, [%q2]; "
    store = "st.global.b32 [%q2 + 4096], %r1; "
    data = {0: np.zeros(32, np.uint32), 1: np.zeros(32, np.uint32)}
    assert run(load, data).block.memory.traffic() == 128
    assert run(load + load, data).block.memory.traffic() == 128
    assert run(load + store, data).block.memory.traffic() == 256
    # What a launch has stored it reads from the cache; one number of a sector is all of it.
    assert run(load + store + "ld.global.b32 %r2, [%q2 + 4096];", data).block.memory.traffic() == 256
    assert run("ld.global.b32 %r1, [%q90];", data).block.memory.traffic() == 32


def test_what_is_asked_for_ahead_is_moved_once_and_must_be_there(run):
    data = {0: np.zeros(32, np.uint32)}
    assert run("prefetch.global.L2 [%q90]; ld.global.b32 %r1, [%q90];", data).block.memory.traffic() == 32
    refused(run, "1 bytes at byte 128 of tensor 0, which has 128", "prefetch.global.L2 [%q90 + 128];", data=data)
