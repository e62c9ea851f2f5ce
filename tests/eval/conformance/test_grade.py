"""The verdict names the rule that broke: of 48 mutants of NF4, of what is installed, and in C as in Python."""

import json
import shutil
import subprocess
from collections import namedtuple
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lowrank.eval.conformance import implementations
from lowrank.eval.conformance.cases import cases
from lowrank.eval.conformance.grade import BROKEN, KEPT, NOT_JUDGED, Verdict, grade
from lowrank.eval.conformance.implementations import IMPLEMENTATIONS, answer, implementation
from lowrank.eval.conformance.kit import read_tensor, write_kit, write_tensor
from lowrank.eval.conformance.rules import RULES
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.codebooks import nf4


def _mutants() -> Any:
    spec = spec_from_file_location("mutants", Path(__file__).with_name("mutants.py"))
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made = _mutants()
MUTANTS = made.MUTANTS


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kit(tmp_path_factory.mktemp("conformance") / "kit")


@pytest.fixture(scope="module")
def grader(kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    program = tmp_path_factory.mktemp("grader") / "grade"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", program, kit / "grade.c", "-lm"], check=True)
    return program


def judged(kit: Path, implementation: Any, folder: Path) -> Verdict:
    return grade(kit, answer(implementation, folder))


def test_the_pieces_together_are_nf4(kit: Path, tmp_path: Path) -> None:
    verdict = judged(kit, made.Pieces(), tmp_path / "answers")
    assert verdict.broken == () and all(finding.state == KEPT for finding in verdict.findings)


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_killed_and_its_rule_is_named(name: str, kit: Path, grader: Path, tmp_path: Path) -> None:
    rule, mutant = MUTANTS[name]
    verdict = judged(kit, mutant(), tmp_path / "answers")
    assert verdict.broken and verdict.broken[0] == rule, verdict.broken
    assert f"breaks the rule {rule!r}" in verdict.sentence()
    done = subprocess.run([grader, kit, tmp_path / "answers"], capture_output=True, text=True)
    assert done.returncode == 1
    assert {line.split()[1].rstrip(":") for line in done.stdout.splitlines()[:-1]} == set(verdict.broken)


def test_there_are_enough_mutants_and_every_rule_has_one() -> None:
    assert len(MUTANTS) >= 30
    assert {rule for rule, _ in MUTANTS.values()} == {rule.name for rule in RULES}


@pytest.mark.parametrize("name", ["reference", "lowrank"])
def test_ours_keep_every_rule(name: str, kit: Path, grader: Path, tmp_path: Path) -> None:
    verdict = judged(kit, implementation(name), tmp_path / "answers")
    assert verdict.broken == () and all(finding.state == KEPT for finding in verdict.findings)
    assert f"keeps all {len(RULES)} rules" in verdict.sentence()
    done = subprocess.run([grader, kit, tmp_path / "answers"], capture_output=True, text=True)
    assert done.returncode == 0 and "checks that are answered hold" in done.stdout


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # its own
def test_bitsandbytes_breaks_what_the_page_says(kit: Path, tmp_path: Path) -> None:
    verdict = judged(kit, implementation("bitsandbytes"), tmp_path / "answers")
    straddling = {"straddling-rows", "one-hot-straddling"}  # where the processor has AVX-512
    assert set(verdict.broken) - straddling == {"denormal-block"}
    assert set(verdict.broken) & straddling in (set(), straddling)
    choice = next(finding for finding in verdict.findings if finding.rule == "nested-choice")
    assert choice.as_found == "as table"


def test_what_many_write_by_themselves_breaks_what_the_page_says(kit: Path, tmp_path: Path) -> None:
    plain = judged(kit, implementation("plain"), tmp_path / "plain")
    assert plain.broken == ("rounding-bfloat16", "rounding-float16", "ties", "reciprocal", "input-types", "zero-block")
    other = judged(kit, implementation("iq4_nl"), tmp_path / "iq4_nl")
    assert other.broken[:2] == ("levels", "nibble-order")


class FourDecimals:
    """A tensor as torchao's NF4Tensor is made and read, with its levels of four decimals."""

    def __init__(self, about: Any, blocksize: int, blocks: int, size: int, scales: Tensor, factor: Tensor,
                 mean: Tensor, codes: Tensor, nf4: Tensor) -> None:  # fmt: skip
        self.about, self.quantized_data, self.nf4 = about, codes, nf4
        self.scales = (scales.view(blocks, size) / factor[:, None]).flatten() + mean
        self.blocksize = blocksize

    @classmethod
    def from_tensor(cls, w: Tensor, blocksize: int, size: int) -> "FourDecimals":
        assert w.numel() % blocksize == 0, "must be divisible by block size"
        levels = torch.round(nf4() * 1e4) / 1e4
        absmax = w.flatten().view(-1, blocksize).abs().amax(dim=1).float()
        found = reference.quantize_4bit(w, "nf4", blocksize)
        one = torch.ones(len(absmax))
        return cls(None, blocksize, len(absmax), 1, absmax, one, torch.zeros(()), found.codes, levels.to(w.dtype))

    def get_original_weight(self) -> Tensor:
        codes = torch.stack([self.quantized_data >> 4, self.quantized_data & 15], dim=1).flatten().long()
        w = self.nf4[codes].view(-1, self.blocksize) * self.scales[:, None].to(self.nf4.dtype)
        return w.view(self.about.original_shape)


@pytest.mark.parametrize("own_levels", [True, False])
def test_torchaos_products_are_graded_with_the_maxima_of_the_kit(
    own_levels: bool, kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a stand-in: levels of four decimals break whatever is made of them, and nothing else is broken by the way."""
    names = ["original_shape", "original_strides", "storage_offset", "dtype", "device", "requires_grad"]
    module = SimpleNamespace(
        NF4Tensor=FourDecimals,
        SubclassTensorArgs=namedtuple("SubclassTensorArgs", names),
        get_block_absmax=lambda w, blocksize: w.view(-1, blocksize).abs().amax(dim=1),
        linear_nf4=lambda x, weight: x @ weight.get_original_weight().T,
    )
    monkeypatch.setattr(implementations, "need", lambda *_: None)
    monkeypatch.setattr(implementations, "import_module", lambda _: module)
    verdict = judged(kit, implementation("torchao" if own_levels else "torchao-levels"), tmp_path / "answers")
    rounding = {"rounding-bfloat16", "rounding-float16"}
    of_levels = {"levels", "nibble-order", "blocks", "float32-product", "blocksizes", "straddling-rows", "one-hot"}
    assert set(verdict.broken) == (rounding | of_levels | {"product"} if own_levels else rounding)
    states = {finding.rule: finding.state for finding in verdict.findings}
    assert states["tail"] == states["nested-sum"] == NOT_JUDGED


def test_what_is_not_answered_is_not_judged(kit: Path, tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    verdict = grade(kit, tmp_path / "answers")
    assert {finding.state for finding in verdict.findings} == {NOT_JUDGED}
    assert verdict.sentence() == "no rule is judged: there is no answer to any case"
    levels = next(case for case in cases() if case.name == "levels")
    write_tensor(tmp_path / "answers/levels.w.bin", levels.checks[0].accepted["reference"])
    assert [finding.rule for finding in grade(kit, tmp_path / "answers").findings if finding.state == KEPT] == [
        "levels"
    ]


def test_an_answer_of_another_size_and_a_call_that_is_refused_are_breaks(
    kit: Path, grader: Path, tmp_path: Path
) -> None:
    folder = answer(implementation("reference"), tmp_path / "answers")
    path = folder / "levels.w.bin"
    write_tensor(path, read_tensor(path, "float32")[:-1])
    (folder / "ties.refused").touch()
    (folder / "midpoints.refused").touch()
    verdict = grade(kit, folder)
    assert verdict.broken == ("levels", "ties")
    assert verdict.findings[0].breaks[0].first == "63 numbers for 64"
    done = subprocess.run([grader, kit, folder], capture_output=True, text=True)
    assert "levels: w is of another size" in done.stdout and "midpoints: codes is refused" in done.stdout


@pytest.mark.slow
def test_one_wrong_number_is_found_in_every_check(kit: Path, grader: Path, tmp_path: Path) -> None:
    """Each output of ours with its last byte changed, one at a time."""
    whole = answer(implementation("reference"), tmp_path / "answers")
    manifest = json.loads((kit / "manifest.json").read_text())
    for case in manifest["cases"]:
        for check in case["checks"]:
            path = whole / f"{case['name']}.{check['output']}.bin"
            if check["compare"] in ("not-finite", "within"):
                continue
            kept = path.read_bytes()
            path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 0x40]))
            assert check["rule"] in grade(kit, whole).broken, (case["name"], check)
            path.write_bytes(kept)


def test_a_folder_that_is_no_kit_and_answers_that_are_not_there_are_told(
    kit: Path, grader: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"holds no manifest\.json, so it is no kit"):
        grade(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="no such folder of answers"):
        grade(kit, tmp_path / "none")
    for folders in ((tmp_path, tmp_path), (kit, tmp_path)):
        assert subprocess.run([grader, *folders], capture_output=True).returncode == 2
    with pytest.raises(ValueError, match="implementation must be one of reference"):
        implementation("another")
    assert "torchao" in IMPLEMENTATIONS


def test_findings_have_states_and_places(kit: Path, tmp_path: Path) -> None:
    _, mutant = MUTANTS["ties upward"]
    verdict = judged(kit, mutant(), tmp_path / "answers")
    ties = next(finding for finding in verdict.findings if finding.rule == "ties")
    assert ties.state == BROKEN and ties.breaks[0].case == "midpoints" and 0 < ties.breaks[0].wrong <= 32
    assert "BROKEN" in verdict.table() and verdict.to_json()["findings"][0]["state"] == KEPT
