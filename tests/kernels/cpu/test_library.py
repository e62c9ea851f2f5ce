"""The C library: found or not, chosen by the environment, told where the tensors of a weight are."""

import copy
import ctypes.util
import pickle
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from child_process import environment, run_python

from lowrank.kernels import ops
from lowrank.kernels.cpu import library
from lowrank.kernels.cpu import linear as cpu_linear
from lowrank.kernels.dispatch import table
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.quantized_weight import Blockwise4bit

COMPILED = pytest.mark.skipif(
    bool(library.unavailable_reason()), reason=library.unavailable_reason() or "there is a library"
)
SAY_THE_SET = "from lowrank.kernels.cpu import library; print(library.instruction_set())"


@pytest.fixture(autouse=True)
def everything_is_asked_anew() -> Iterator[None]:
    remembered = (library.unavailable_reason, library.library, table.choose, table.choice_reason)
    for function in remembered:
        function.cache_clear()
    yield
    for function in remembered:
        function.cache_clear()


def weight(rows: int = 4) -> Blockwise4bit:
    w = torch.randn(rows, 64, generator=torch.Generator().manual_seed(0))
    return reference.quantize_4bit(w, double_quant=True)


def in_a_process(code: str, **variables: str) -> str:
    """The output of a Python process of its own."""
    return run_python("-c", code, env=environment(**variables)).stdout


@pytest.mark.slow
@COMPILED
def test_an_instruction_set_can_be_forced() -> None:
    assert in_a_process(SAY_THE_SET, LOWRANK_CPU_ISA="portable") == "portable\n"


@pytest.mark.usefixtures("bf16_dots")
def test_dot_products_of_bfloat16_can_be_forced_and_come_before_the_plain_set() -> None:
    assert in_a_process(SAY_THE_SET, LOWRANK_CPU_ISA="avx512bf16") == "avx512bf16\n"
    assert in_a_process(SAY_THE_SET, LOWRANK_CPU_ISA="avx512") == "avx512\n"
    widest = in_a_process(SAY_THE_SET, LOWRANK_CPU_ISA="")
    assert widest in ("amx\n", "avx512bf16\n")


@COMPILED
def test_an_instruction_set_that_is_not_here_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.ISA, "mmx")
    with pytest.raises(ValueError, match=r"^LOWRANK_CPU_ISA must name an instruction set .*, got 'mmx'$"):
        cpu_linear.linear(torch.ones(1, 64), weight())


def test_the_environment_names_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.LIBRARY, str(tmp_path / "other.so"))
    assert library.file() == tmp_path / "other.so"
    with pytest.raises(ValueError, match=r"^LOWRANK_CPU_LIBRARY .*other\.so"):
        library.library()


@COMPILED
def test_a_library_of_other_sources_is_refused_before_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "api.h"
    other.write_bytes(library.API.read_bytes().replace(b"int32_t blocksize", b"int64_t blocksize"))
    monkeypatch.setattr(library, "API", other)
    with pytest.raises(
        ValueError, match=r"^\S+ was built from other sources than those in \S+: run `pip install -e \.` again$"
    ):
        library.library()
    other.unlink()  # where no sources lie beside it, there is nothing that it could be compared with
    assert library.library()


def test_a_library_that_is_another_program_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.LIBRARY, str(ctypes.util.find_library("m")))
    with pytest.raises(ValueError, match=r"^\S+ was built from other sources than "):
        library.library()


def test_the_environment_asks_for_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.LIBRARY, "none")
    assert library.file() is None
    assert library.unavailable_reason() == "LOWRANK_CPU_LIBRARY is 'none'"
    assert {choice.path for choice in ops.explain(3, 6, 64, dtype=torch.float32, device="cpu")} == {"plain torch"}


@pytest.mark.filterwarnings("error")
def test_without_a_library_plain_torch_computes_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "file", lambda: None)
    monkeypatch.delenv(library.LIBRARY, raising=False)
    w = torch.randn(6, 64)
    x = torch.randn(3, 64, requires_grad=True)
    held = ops.to_fast_layout(ops.quantize(w, "nf4-dq"), torch.float32)
    assert torch.equal(ops.linear(x, held), reference.linear(x, reference.quantize_4bit(w, double_quant=True)))
    ops.linear(x, held).sum().backward()
    assert torch.equal(x.grad, reference.linear_backward(torch.ones(3, 6), held))
    for choice in ops.explain(3, 6, 64, dtype=torch.float32, device="cpu"):
        assert (choice.path, choice.reason) == ("plain torch", library.unavailable_reason())
    assert "no compiler when lowrank was installed" in library.unavailable_reason()


@COMPILED
def test_a_description_is_kept_until_a_tensor_moves() -> None:
    held, x = weight(), torch.randn(2, 64)
    first = library.describe(held)
    assert library.describe(held) is first
    y = cpu_linear.linear(x, held)
    held.codes.set_(held.codes.clone())
    assert library.describe(held) is not first
    assert torch.equal(cpu_linear.linear(x, held), y)


@COMPILED
def test_a_weight_that_was_described_can_be_copied_and_pickled() -> None:
    held, x = weight(), torch.randn(2, 64)
    y = cpu_linear.linear(x, held)
    for other in (copy.deepcopy(held), pickle.loads(pickle.dumps(held)), replace(held)):
        assert torch.equal(cpu_linear.linear(x, other), y)
        assert library.describe(other) is not library.describe(held)


@COMPILED
def test_stored_tensors_that_do_not_fit_are_refused_before_a_pointer_is_followed() -> None:
    held = weight()
    for short in (replace(held, codes=held.codes[:-1]), replace(held, codes=held.codes.view(-1, 2).T[:1])):
        with pytest.raises(ValueError, match=r"codes must be torch\.uint8"):
            cpu_linear.linear(torch.ones(1, 64), short)
    with pytest.raises(ValueError, match="codes must be contiguous"):
        cpu_linear.linear(torch.ones(1, 64), replace(held, codes=held.codes.repeat_interleave(2)[::2]))


def test_a_weight_that_is_no_matrix_is_not_multiplied_with() -> None:
    with pytest.raises(ValueError, match=r"W must be a matrix to be multiplied with, got shape \(2, 3, 64\)"):
        ops.linear(torch.ones(1, 3), ops.quantize(torch.ones(2, 3, 64), "nf4"))


@COMPILED
def test_pages_of_2_mb_change_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    native = library.library()
    ask = native.lowrank_prefer_huge_pages
    monkeypatch.setattr(native, "lowrank_prefer_huge_pages", lambda *a: (asked.append(a), ask(*a)))
    codes = torch.randint(0, 256, (library.MIN_HUGE_PAGE_BYTES + 4096,), dtype=torch.uint8)
    held = Blockwise4bit(codes, torch.ones(2 * len(codes) // 64), "nf4", 64, (2 * len(codes) // 64, 64))
    before = codes.clone()
    assert ops.to_fast_layout(held, torch.bfloat16) is held
    assert asked == [(codes.data_ptr(), codes.numel())]
    assert torch.equal(codes, before)
    for begin, bytes in ((1, 100), (1, 4097), (4095, 8192), (0, 0), (3, library.MIN_HUGE_PAGE_BYTES)):
        ask(codes.data_ptr() + begin, bytes)
    assert torch.equal(codes, before)
    ops.to_fast_layout(weight(), torch.bfloat16)
    assert len(asked) == 1


@COMPILED
def test_pages_of_2_mb_are_asked_for_under_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(library.library(), "lowrank_prefer_huge_pages", lambda *a: asked.append(a))
    memory = torch.zeros(16 << 20, dtype=torch.uint8)
    mb, first = 1 << 20, memory.data_ptr()
    library.prefer_huge_pages(
        [memory[5 * mb : 6 * mb], memory[: 4 * mb], memory[mb : 2 * mb], memory[8 * mb : 11 * mb]]
    )
    assert asked == [(first, 6 * mb)]  # the last stands alone, and is too short to hold a page wherever it begins
    library.prefer_huge_pages([memory[15 * mb :], memory[8 * mb : 14 * mb]])
    assert asked[1:] == [(first + 8 * mb, 8 * mb)]


@pytest.mark.slow
@COMPILED
@pytest.mark.skipif(platform.system() != "Linux" or platform.libc_ver()[0] != "glibc", reason="it is a wish to glibc")
def test_what_is_freed_stays_until_it_is_to_be_given_back() -> None:
    """In a process of its own, whose other memory does not change."""
    asked = """
from pathlib import Path
import torch
from lowrank.kernels.cpu import library
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20
library.keep_freed_memory(True)
before = resident()
held = [torch.ones(1 << 20) for _ in range(50)]
del held
kept = resident()
library.keep_freed_memory(False)
print(kept - before, resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    kept, left = map(int, done.stdout.split())
    assert kept > 150 and left < 50  # MB of 200
