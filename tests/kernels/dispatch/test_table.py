"""The table of paths: what is taken where, and the reasons that are given."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from child_process import run_python

from lowrank.kernels.cpu import crossover as cpu_crossover
from lowrank.kernels.cpu import library
from lowrank.kernels.dispatch import crossover, table
from lowrank.kernels.dispatch import explain as explain_module
from lowrank.kernels.dispatch.crossover import Crossover
from lowrank.kernels.dispatch.explain import LOOK_UP, Choice, explain, paths_in_use
from lowrank.kernels.dispatch.table import BACKWARD, DEQUANTIZE, FORWARD, OPS, QUANTIZE, TABLE, Case
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.quantized_weight import KERNEL_DTYPES, Blockwise4bit, Repacked4bit

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine whose GPU nobody has measured: none")


def explained(m: int = 16, n: int = 4096, k: int = 11008, **options) -> dict[str, Choice]:
    options = {"dtype": torch.bfloat16, "device": "cuda"} | options
    return {choice.op: choice for choice in explain(m, n, k, **options)}


def paths(**options) -> dict[str, str]:
    return {op: choice.path for op, choice in explained(device="cpu", **options).items()}


def test_on_a_cpu_the_c_library_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "unavailable_reason", lambda: "")
    monkeypatch.setattr(library, "instruction_set", lambda: "avx2")
    monkeypatch.setattr(library, "processor", lambda: "")
    panels = {QUANTIZE: "C", DEQUANTIZE: "C", FORWARD: "C, float32 panels", BACKWARD: "C, float32 panels"}
    assert paths(m=1) == paths(m=4) == panels | {FORWARD: "C"}
    assert paths(m=9) == paths(m=512) == panels
    assert paths(m=1, format="int8") == panels | {QUANTIZE: "plain torch", FORWARD: "C"}
    assert paths(m=9, format="int8") == panels | {QUANTIZE: "plain torch"}
    assert set(paths(dtype=torch.float64).values()) == {"plain torch"}


def test_the_vendors_gemm_is_taken_where_it_was_measured_to_be_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "unavailable_reason", lambda: "")
    monkeypatch.setattr(library, "instruction_set", lambda: "avx512")
    for processor, dtype, last in (
        ("", torch.float32, {FORWARD: 15, BACKWARD: 7}),  # a processor that nobody has measured
        ("AuthenticAMD 25", torch.bfloat16, {FORWARD: 47, BACKWARD: 191}),
    ):
        monkeypatch.setattr(library, "processor", lambda name=processor: name)
        for op, m in last.items():
            table.choose.cache_clear()
            table.choice_reason.cache_clear()
            assert paths(m=m, dtype=dtype)[op] == "C, float32 panels"
            assert paths(m=m + 1, dtype=dtype)[op] == "C panels + GEMM"
            assert f"M {m + 1} is not below {m + 1}" in explained(m + 1, device="cpu", dtype=dtype)[op].reason
    assert paths(m=4096, dtype=torch.float32)[FORWARD] == "C, float32 panels"
    table.choose.cache_clear()
    table.choice_reason.cache_clear()


def test_bfloat16_is_not_widened_where_dot_products_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "unavailable_reason", lambda: "")
    monkeypatch.setattr(library, "instruction_set", lambda: "avx512bf16")
    monkeypatch.setattr(library, "processor", lambda: "AuthenticAMD 25")
    table.choose.cache_clear()
    assert paths(m=8)[FORWARD] == "C"
    assert paths(m=9, dtype=torch.float16)[FORWARD] == "C, float32 panels"
    table.choose.cache_clear()


def test_panels_begin_where_the_c_library_begins_them() -> None:
    header = Path(library.__file__).with_name("src") / "panel_gemm.h"
    assert f"#define PANELS_FROM {library.FLOAT_PANELS_FROM}\n" in header.read_text(encoding="utf-8")


def test_a_matrix_unit_takes_bfloat16_in_whole_blocks_from_a_few_rows_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "unavailable_reason", lambda: "")
    monkeypatch.setattr(library, "instruction_set", lambda: "amx")
    monkeypatch.setattr(library, "processor", lambda: "")
    assert paths(m=3)[FORWARD] == paths(m=3)[BACKWARD] == "C, matrix unit"
    assert [paths(m=2)[FORWARD], paths(m=2)[BACKWARD]] == ["C", "C, matrix unit"]
    for options in ({"dtype": torch.float32}, {"blocksize": 32}, {"k": 4100}, {"format": "int8"}):
        assert "matrix unit" not in paths(m=6, **options)[FORWARD]


def test_dot_products_take_bfloat16_in_whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "unavailable_reason", lambda: "")
    monkeypatch.setattr(library, "instruction_set", lambda: "avx512bf16")
    monkeypatch.setattr(library, "processor", lambda: "")
    assert [paths(m=m)[FORWARD] for m in (1, 13, 14, 512)] == ["C", "C", table.C_DOTS, table.C_DOTS]
    assert {paths(m=m)[BACKWARD] for m in (1, 512)} == {table.C_DOTS}
    for options in ({"dtype": torch.float32}, {"blocksize": 32}, {"k": 4100}, {"format": "int8"}):
        assert table.C_DOTS not in paths(m=64, **options).values()
    reason = explained(m=64, device="cpu", blocksize=32)[FORWARD].reason
    assert "products in bfloat16 are of blocks of 64 or more, this is of 32" in reason


def test_the_paths_of_a_weight_are_told_from_which_rows_on(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = reference.quantize_4bit(torch.ones(64, 128), double_quant=True)
    monkeypatch.setattr(library, "unavailable_reason", lambda: "")
    for module in (library, explain_module):
        monkeypatch.setattr(module, "unavailable_reason", lambda: "")
        monkeypatch.setattr(module, "processor", lambda: "GenuineX 7")
        monkeypatch.setattr(module, "instruction_set", lambda: "avx512bf16")
    assert paths_in_use([weight, weight], torch.bfloat16) == {
        "cpu": "GenuineX 7, avx512bf16",
        f"{FORWARD} 64x128 nf4-dq bfloat16 cpu": "C from M 1, C, bfloat16 dot products from M 14",
        f"{BACKWARD} 64x128 nf4-dq bfloat16 cpu": "C, bfloat16 dot products from M 1",
    }
    assert paths_in_use([], torch.bfloat16) == {}


def test_on_a_cpu_without_the_c_library_everything_is_plain_torch_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "unavailable_reason", lambda: "nobody compiled it")
    choices = explained(m=3, device="cpu").values()
    assert list(choices) == [Choice(op, "plain torch", "nobody compiled it") for op in OPS]


@NO_GPU
@pytest.mark.parametrize(
    ("m", "forward", "dx"),
    [
        (1, "table of pairs", "Triton decode"),
        (5, "Triton decode", "Triton decode"),
        (33, "Triton decode", "Triton fused"),
        (64, "Triton decode", "Triton fused"),
        (65, "Triton fused", "Triton fused"),
        (255, "Triton fused", "Triton fused"),
        (256, "scratch + GEMM", "scratch + GEMM"),
    ],
    ids="M{}".format,
)
def test_four_bits_on_a_gpu_are_repacked(m: int, forward: str, dx: str) -> None:
    assert {op: choice.path for op, choice in explained(m).items() if op != LOOK_UP} == {
        QUANTIZE: "Triton",
        DEQUANTIZE: "Triton, repacked",
        FORWARD: forward,
        BACKWARD: dx,
    }


@pytest.mark.parametrize(
    ("compiler", "shared", "reason"),
    [
        ("", 101_376, ""),
        ("no compiler", 101_376, "no compiler"),
        ("", 49_152, "x [1, 11008] and the table take 64512 bytes of shared memory, the most is 49152"),
    ],
    ids=["both", "no compiler", "little shared memory"],
)
def test_the_table_of_pairs_needs_a_compiler_and_shared_memory(
    compiler: str, shared: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    properties = SimpleNamespace(shared_memory_per_block_optin=shared)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(table.nvrtc, "unavailable_reason", lambda: compiler)
    device = torch.device("cuda", 0)
    case = Case(FORWARD, 1, 4096, 11008, torch.bfloat16, device, "nf4-dq", Repacked4bit)
    assert table.no_pair_table_reason(case) == reason


@NO_GPU
def test_float32_is_not_fused_and_says_why() -> None:
    choices = {m: explained(m, dtype=torch.float32)[FORWARD] for m in (24, 25)}
    assert [choice.path for choice in choices.values()] == ["Triton decode", "scratch + GEMM"]
    assert choices[25].reason == (
        "the table of pairs has levels of 16 bits, this is float32; "
        "M 25 is not below 25, from where the vendor's GEMM is as fast (derived for float32); "
        "the matrix units have no IEEE product in float32"
    )


@NO_GPU
@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"k": 11000}, "K must be a multiple of blocksize 64, got K 11000"),
        ({"blocksize": 256}, "blocksize must be 64 or 128, got 256"),
    ],
    ids=["ragged-K", "blocksize"],
)
def test_four_bits_that_cannot_be_repacked_say_why(options: dict, rule: str) -> None:
    choices = explained(1, **options)
    for op in (FORWARD, BACKWARD):
        assert choices[op].path == "scratch + GEMM" and choices[op].reason.endswith(f"; not repacked: {rule}")
    assert (choices[DEQUANTIZE].path, LOOK_UP in choices) == ("Triton", False)


@NO_GPU
def test_what_was_run_of_the_look_up_is_said() -> None:
    assert explained(1)[LOOK_UP].path == "assembly, emulated"
    assert "no such GPU here" in explained(1)[LOOK_UP].reason
    assert explained(1, dtype=torch.float32)[LOOK_UP].path == "gather"
    assert LOOK_UP not in explained(512) and LOOK_UP not in explained(1, device="cpu")


def test_a_look_up_on_a_gpu_that_is_here_was_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: None)
    choice = explained(5, device="cuda:6")[LOOK_UP]
    assert (choice.path, choice.reason) == ("assembly, run on this GPU", "NVIDIA X")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert explained(5, device="cuda:6")[LOOK_UP].path == "gather"
    crossover.crossover.cache_clear()
    table.choose.cache_clear()
    table.choice_reason.cache_clear()


@NO_GPU
@pytest.mark.parametrize(("m", "path"), [(1, "Triton int8"), (255, "Triton int8"), (256, "scratch + GEMM")])
def test_int8_on_a_gpu(m: int, path: str) -> None:
    choices = explained(m, format="int8")
    assert {choices[op].path for op in (FORWARD, BACKWARD)} == {path}
    assert choices[QUANTIZE] == Choice(QUANTIZE, "plain torch", "no kernel is written for it")


@NO_GPU
def test_a_crossover_that_was_not_measured_is_said_to_be_none() -> None:
    reason = explained(512, format="int8")[FORWARD].reason
    assert reason == "M 512 is not below 256, from where the vendor's GEMM is as fast (not measured on this GPU)"


def test_a_crossover_that_was_measured_is_taken(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "crossover.json"
    file.write_text(json.dumps({"NVIDIA X": {"nf4-dq": {FORWARD: {"fused": 33, "scratch": 48}}}}))
    monkeypatch.setattr(crossover, "FILE", file)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X")
    about = torch.device("cuda", 7), "nf4-dq"
    assert crossover.crossover(*about, FORWARD, torch.float16) == Crossover(33, 48, "measured on NVIDIA X")
    assert crossover.crossover(*about, BACKWARD, torch.bfloat16) == Crossover(33, 256, "not measured on NVIDIA X")
    assert crossover.crossover(*about, FORWARD, torch.float32) == Crossover(25, 25, "derived for float32")
    crossover.crossover.cache_clear()


def test_what_is_stored_is_two_numbers_of_rows_for_an_operation_of_a_format_of_a_gpu() -> None:
    for formats in json.loads(crossover.FILE.read_text(encoding="utf-8")).values():
        for format, ops in formats.items():
            for op, found in ops.items():
                assert format in table.QUANTIZED_NAMES and op in (FORWARD, BACKWARD)
                assert 1 <= found["fused"] <= found["scratch"] and len(found) == 2


def test_what_is_stored_of_cpus_names_operations_and_paths_of_the_table_and_covers_all_that_ask() -> None:
    rows = json.loads(cpu_crossover.FILE.read_text(encoding="utf-8"))
    for row in rows:
        assert set(row) == {"processor", "instruction_set", "op", "dtype", "path", "from", "known"}
        assert (row["op"], row["path"]) in {(path.op, path.name) for path in TABLE}
        assert row["dtype"] in ("", *(table.short(dtype) for dtype in KERNEL_DTYPES))
        assert (row["from"] is None or row["from"] >= 1) and row["known"]
    for op in (FORWARD, BACKWARD):
        assert any((row["op"], row["path"]) == (op, table.C_DEQUANT_GEMM) for row in rows if not row["processor"])


def test_a_row_for_this_processor_is_taken_before_one_for_any(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"op": FORWARD, "path": table.C_DEQUANT_GEMM, "dtype": ""}
    rows = [
        {"processor": "GenuineX 7", "instruction_set": "avx2", **about, "from": 5, "known": "measured"},
        {"processor": "", "instruction_set": "", **about, "from": 9, "known": "derived"},
    ]
    file = tmp_path / "crossover.json"
    file.write_text(json.dumps(rows))
    monkeypatch.setattr(cpu_crossover, "FILE", file)
    monkeypatch.setattr(library, "instruction_set", lambda: "avx2")
    for processor, expected in (("GenuineX 7", (5, "measured")), ("GenuineX 8", (9, "derived")), ("", (9, "derived"))):
        monkeypatch.setattr(library, "processor", lambda name=processor: name)
        cpu_crossover._first_rows.cache_clear()
        assert cpu_crossover.first_rows(table.C_DEQUANT_GEMM, FORWARD, torch.float16) == expected
    cpu_crossover._first_rows.cache_clear()


@NO_GPU
@pytest.mark.parametrize(
    ("options", "op", "reason"),
    [
        ({"dtype": torch.float64}, FORWARD, "the kernels take float32, bfloat16, float16, this is float64"),
        ({"m": 0}, FORWARD, "x has no rows"),
        ({"n": 0}, QUANTIZE, "W [0, 11008] holds no weight"),
        ({"device": "mps"}, BACKWARD, "no kernel is written for it"),
    ],
    ids=["dtype", "no-rows", "no-weights", "device"],
)
def test_what_no_kernel_takes_goes_to_plain_torch_and_says_why(options: dict, op: str, reason: str) -> None:
    assert explained(**options)[op] == Choice(op, "plain torch", reason)


@pytest.fixture(autouse=True)
def choices_are_made_anew() -> Iterator[None]:
    table.choose.cache_clear()
    table.choice_reason.cache_clear()
    yield
    table.choose.cache_clear()
    table.choice_reason.cache_clear()


def test_an_old_gpu_and_a_machine_without_triton_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(FORWARD, 1, 4, 64, torch.float16, torch.device("cuda"), "nf4", Blockwise4bit)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert table.no_triton_reason(case) == "Triton's kernels need compute capability 8.0, this GPU has 7.5"
    monkeypatch.setattr(table, "find_spec", lambda name: None)
    assert table.no_triton_reason(case) == "Triton is not installed (it exists on Linux only)"


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"m": -1}, "m must be at least 0, got -1"),
        ({"format": "nf3"}, "format must be one of int8, nf4, .* got 'nf3'"),
        ({"blocksize": 48}, "blocksize must be a power of two from 32 to 4096, got 48"),
        ({"device": "toaster"}, "device 'toaster': "),
    ],
    ids=["m", "format", "blocksize", "device"],
)
def test_a_question_that_makes_no_sense_is_refused(options: dict, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        explained(**options)


@pytest.mark.parametrize("path", TABLE, ids=lambda path: f"{path.op}-{path.name}".replace(" ", "-"))
def test_every_row_names_a_function_that_is_there(path: table.Kernel) -> None:
    assert callable(replace(path).run)


@pytest.mark.parametrize("op", OPS)
def test_the_last_row_of_every_operation_takes_everything(op: str) -> None:
    last = [path for path in TABLE if path.op == op][-1]
    assert (last.name, last.layout, last.rules) == ("plain torch", None, ())


@pytest.mark.slow
def test_triton_is_not_imported_where_it_is_not_wanted() -> None:
    code = "import sys, torch; from lowrank.kernels import ops; w = ops.quantize(torch.ones(2, 64), 'nf4')\n"
    code += "ops.linear(torch.ones(1, 64), w); print('lowrank.kernels.triton.dequantize' in sys.modules)"
    assert run_python("-c", code).stdout.strip() == "False"
