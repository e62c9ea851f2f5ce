"""The committed table of static costs: every kernel is in it, none spills, and none has become dearer."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from child_process import environment, run_python

from lowrank.bench.static import cost
from lowrank.bench.static.case import ALL_NVIDIA
from lowrank.bench.static.cases import CASES
from lowrank.bench.static.cost import Cost, changed, complaints, inner_loop, read, sass, versions
from lowrank.kernels.cuda import decode_step, pairs

ROW = Cost("kernel", "sm_90", 64, 0, 1024, 4.0, 2.0, 0.125, 0.25, 6.0, "alu")


def test_the_table_has_every_kernel_for_every_target_without_a_spill() -> None:
    _, rows = read()
    assert [(row.kernel, row.target) for row in rows] == [
        (case.name, target) for case in CASES for target in case.targets
    ]
    assert not [row for row in rows if row.spilled]


def test_the_decode_loop_keeps_its_goals_on_hopper() -> None:
    rows = {(row.kernel, row.target): row for row in read()[1]}
    for nested in ("nf4", "nf4-dq"):
        row = rows[f"decode_linear M8 bf16 {nested}", "sm_90"]
        assert row.alu <= 2.8 and row.slots <= 4.0


STEP = tuple(f"{name}_pairs" for name in ("qkv", "gate_up", "residual"))
OF_ONE_ROW = ("decode_pairs M1 bf16 nf4", "decode_pairs M1 bf16 nf4-dq")
OF_ONE_ROW += tuple(f"{name} M1 bf16 nf4-dq{hat}" for name in STEP for hat in ("", " rank 8"))


@pytest.mark.parametrize("kernel", OF_ONE_ROW)
def test_the_table_of_pairs_keeps_its_goals_and_as_many_programs_on_hopper_as_its_launch_assumes(kernel: str) -> None:
    row = next(row for row in read()[1] if (row.kernel, row.target) == (kernel, "sm_90"))
    assert row.alu <= 1.3 and row.slots <= 2.4
    assert row.registers * pairs.THREADS * pairs.PROGRAMS <= 65_536
    assert (row.shared + 1024) * pairs.PROGRAMS <= 228 * 1024


@pytest.mark.parametrize("m", [2, 4])
def test_the_kernels_of_a_step_run_as_many_at_once_as_their_launch_assumes(m: int) -> None:
    rows = [row for row in read()[1] if row.kernel.startswith(tuple(f"{name} M{m} " for name in STEP))]
    assert {row.target for row in rows} == set(ALL_NVIDIA)
    for row in rows:
        assert row.registers * pairs.THREADS * decode_step.programs_at_once(m) <= 65_536, row


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_120"])
@pytest.mark.parametrize("kernel", ["decode_pairs", *STEP])
def test_no_maximum_is_waited_for_before_the_first_weights_are_asked_for(kernel: str, target: str) -> None:
    """Up to the four loads of 16 bytes of codes no instruction reads a register that another load brings."""
    case = next(case for case in CASES if case.name == f"{kernel} M1 bf16 nf4-dq")
    text = cost.disassembly(cost.machine_code(case, cost.TARGETS[target]))
    loaded: set[str] = set()
    wide = 0
    for name, operands in re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);", text):
        target, *sources = re.findall(r"\bR\d+\b", operands) or [""]
        assert not loaded & set(sources), f"{name}{operands} waits"
        if name.startswith("LDG"):
            loaded.add(target)
            wide += ".128" in name
        if wide == 4:
            break
    assert wide == 4


@pytest.mark.slow
def test_the_table_was_made_of_the_kernels_as_they_are() -> None:
    assert [case.name for case in changed(CASES)] == [], "make static-cost puts them into the table"


@pytest.mark.slow
def test_the_table_is_reproduced_for_the_kernel_of_a_token() -> None:
    case = next(case for case in CASES if case.name == "decode_pairs M1 bf16 nf4-dq")
    assert complaints([cost.cost(case, "sm_90")], *read()) == []


@pytest.mark.long
def test_the_table_is_reproduced_for_a_kernel_in_triton(tmp_path: Path) -> None:
    which = ("--only", "decode_linear M8 bf16 nf4-dq", "--targets", "sm_90")
    run_python("-m", "lowrank.bench.static.cost", "--check", *which, env=environment(TRITON_CACHE_DIR=str(tmp_path)))


@pytest.mark.slow
def test_a_kernel_that_is_not_what_the_table_was_made_of_is_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = changed(CASES)
    known = [case for case in CASES if case not in stale]
    assert known, "every kernel has changed: make the table anew with --write"
    case = replace(known[0], options={**known[0].options, "num_warps": 16})
    assert changed([known[0], case]) == [case]
    monkeypatch.setattr(cost, "versions", lambda: {"triton": "0"})
    assert changed([known[0]]) == [known[0]]


def test_a_change_of_what_a_kernel_calls_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES if "decode_linear" in case.name)
    before, names = cost.source(case), cost._function(case).fn.__globals__
    monkeypatch.setitem(names, "sum_groups", names["add_parts_kernel"])
    assert cost.source(case) != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spilled": 8}, "kernel on sm_90 spills 8 bytes"),
        ({"alu": 2.11}, "kernel on sm_90: alu 2.11 an element, 2.0 in static_cost.json"),
        ({"slots": 4.21}, "kernel on sm_90: slots 4.21 an element, 4.0 in static_cost.json"),
        ({"loads": 0.27}, "kernel on sm_90: loads 0.27 an element, 0.25 in static_cost.json"),
        ({"kernel": "new"}, "new on sm_90 is not in static_cost.json: add it with --write"),
    ],
    ids=["spill", "alu", "slots", "loads", "new"],
)
def test_what_is_worse_is_named(changes, message) -> None:
    assert complaints([replace(ROW, **changes)], versions(), [ROW]) == [message]


def test_five_percent_more_registers_or_less_of_anything_is_no_complaint() -> None:
    assert complaints([replace(ROW, slots=4.19, alu=1.0, registers=200)], versions(), [ROW]) == []


def test_a_table_of_other_versions_fails() -> None:
    (message,) = complaints([ROW], {"triton": "0"}, [ROW])
    assert message.startswith("static_cost.json was made with {'triton': '0'}, this is {'triton': ")


SASS = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   LDS.128 R4, [R1+0x10] ;
        /*0020*/              @!P0 PRMT R8, R4, 0x6240, R5 ;
.L_x_1:
        /*0030*/                   HMMA.16816.F32.BF16 R8, R4, R6, R8 ;
        /*0040*/               @P1 BRA `(.L_x_0) ;
        /*0050*/                   EXIT ;
.L_x_2:
        /*0060*/                   BRA `(.L_x_2);
"""


def test_the_inner_loop_lies_between_a_label_and_the_jump_back_to_it() -> None:
    assert inner_loop(sass(SASS)) == ["LDS", "PRMT", "HMMA", "BRA"]


def test_a_loop_around_another_does_not_count() -> None:
    around = SASS.replace("MOV R1", "NOP ;\n.L_x_9:\n        /*0008*/          MOV R1")
    around = around.replace("EXIT ;", "@P2 BRA `(.L_x_9) ;\n        /*0058*/      EXIT ;")
    assert inner_loop(sass(around)) == ["LDS", "PRMT", "HMMA", "BRA"]


def test_the_loop_with_the_products_counts_and_not_a_longer_one_around_or_behind_it() -> None:
    behind = "\n.L_x_4:" + "\n        /*0060*/          IMAD R1 ;" * 9 + "\n        /*0068*/     @P2 BRA `(.L_x_4) ;"
    around = SASS.replace("MOV R1", "NOP ;\n.L_x_9:\n        /*0008*/          MOV R1")
    around = around.replace("EXIT ;", "FADD R1 ;" + behind + "\n        /*0070*/     @P2 BRA `(.L_x_9) ;")
    assert inner_loop(sass(around)) == ["LDS", "PRMT", "HMMA", "BRA"]


def test_a_loop_in_which_a_short_one_waits_counts_whole() -> None:
    waiting = SASS.replace(".L_x_1:", ".L_x_1:\n        /*0028*/          SYNCS R1 ;\n /*0029*/   @P3 BRA `(.L_x_1) ;")
    assert inner_loop(sass(waiting)) == ["LDS", "PRMT", "SYNCS", "BRA", "HMMA", "BRA"]


def test_the_table_of_the_oldest_triton_has_what_a_token_takes() -> None:
    versions_then, rows = read(cost.OF_OLDEST)
    assert versions_then["triton"].startswith(f"{cost.OLDEST_TRITON}.")
    kernels = {"decode_pairs", "decode_linear", "qkv", "gate_up", "residual", "step_attention", *STEP}
    for target in ALL_NVIDIA:
        assert kernels == {row.kernel.split()[0] for row in rows if row.target == target}
    assert not [row for row in rows if row.spilled and not row.kernel.startswith("decode_linear")]


def test_without_a_loop_the_whole_kernel_counts() -> None:
    straight = SASS.replace("@P1 BRA `(.L_x_0)", "@P1 BRA `(.L_x_2)")
    assert inner_loop(sass(straight)) == ["MOV", "LDS", "PRMT", "HMMA", "BRA", "EXIT", "BRA"]
