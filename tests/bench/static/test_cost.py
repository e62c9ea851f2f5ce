"""The committed table of static costs: every kernel is in it, none spills, and none has become dearer."""

from dataclasses import replace
from pathlib import Path

import pytest
from child_process import environment, run_python

from lowrank.bench.static import cost
from lowrank.bench.static.cases import CASES
from lowrank.bench.static.cost import Cost, changed, complaints, inner_loop, read, sass, versions

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


@pytest.mark.long
@pytest.mark.parametrize("which", [("--changed",), ("--only", "decode_linear M8 bf16 nf4-dq", "--targets", "sm_90")])
def test_no_kernel_costs_more_than_the_table_says(which, tmp_path: Path) -> None:
    """The table's costs are reproduced for the kernels that have changed since, and one more."""
    command = ("-m", "lowrank.bench.static.cost", "--check", *which)
    run_python(*command, env=environment(TRITON_CACHE_DIR=str(tmp_path)))


def test_a_kernel_that_is_not_what_the_table_was_made_of_is_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [case for case in CASES if case not in changed(CASES)]
    assert known, "every kernel has changed: make the table anew with --write"
    case = replace(known[0], options={**known[0].options, "num_warps": 16})
    assert changed([known[0], case]) == [case]
    monkeypatch.setattr(cost, "versions", lambda: {"triton": "0"})
    assert changed([known[0]]) == [known[0]]


def test_a_change_of_what_a_kernel_calls_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES if "decode_linear" in case.name)
    before = cost.source(case)
    monkeypatch.setattr(cost._function(case), "hash", "another look-up")
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


def test_without_a_loop_the_whole_kernel_counts() -> None:
    straight = SASS.replace("@P1 BRA `(.L_x_0)", "@P1 BRA `(.L_x_2)")
    assert inner_loop(sass(straight)) == ["MOV", "LDS", "PRMT", "HMMA", "BRA", "EXIT", "BRA"]
