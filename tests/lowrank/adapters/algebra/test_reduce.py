"""A hat of a lower rank: PEFT's conversion, the error that is told, and what cannot be asked for."""

from pathlib import Path

import pytest
import torch
from peers import peft, transformers
from random_hat import make_hat

from lowrank.adapters.algebra.factored import factor
from lowrank.adapters.algebra.reduce import reduce_rank
from lowrank.adapters.files import read_adapter
from lowrank.adapters.key_names import tensor_key

SAME = 2e-5  # of the largest number: LAPACK's SVD in float32 beside ours in float64

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Converting a PEFT adapter to LoRA:UserWarning"),
]


@pytest.fixture
def hat(hf_folder: Path, tmp_path: Path) -> Path:
    make_hat(hf_folder / "base", tmp_path / "hat", rank=8)
    return tmp_path / "hat"


@pytest.mark.slow
@pytest.mark.parametrize("size", [{"rank": 3}, {"energy": 0.6}], ids=str)
def test_a_reduced_hat_is_pefts_conversion(size: dict[str, float], hf_folder: Path, hat: Path, tmp_path: Path) -> None:
    reduce_rank(hat, tmp_path / "small", **size)
    base = transformers.AutoModelForCausalLM.from_pretrained(hf_folder / "base", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, hat)
    _, state = peft.convert_to_lora(theirs, rank=next(iter(size.values())))
    for path, pair in read_adapter(tmp_path / "small").pairs.items():
        lora_A, lora_B = (state[tensor_key(path, matrix)] for matrix in ("lora_A", "lora_B"))
        delta = lora_B @ lora_A
        assert pair.config.rank == len(lora_A)
        torch.testing.assert_close(pair.delta(), delta, rtol=0, atol=SAME * float(delta.abs().max()))


def test_the_told_error_is_what_was_cut_off(hat: Path, tmp_path: Path) -> None:
    done = reduce_rank(hat, tmp_path / "small", rank=3)
    whole, cut = read_adapter(hat).pairs, read_adapter(tmp_path / "small").pairs
    for linear in done.linears:
        delta = whole[linear.path].delta().double()
        assert linear.wanted == pytest.approx(float(delta.norm()), rel=1e-5)
        assert linear.off == pytest.approx(float((cut[linear.path].delta().double() - delta).norm()), rel=1e-4)
        assert linear.off == pytest.approx(float(factor(whole[linear.path]).sigma[3:].norm()), rel=1e-4)
    assert done.parameters == sum(pair.lora_A.numel() + pair.lora_B.numel() for pair in cut.values())


def test_a_share_of_the_energy_is_kept_by_the_least_rank_that_keeps_it(hat: Path, tmp_path: Path) -> None:
    reduce_rank(hat, tmp_path / "small", energy=0.6)
    for path, pair in read_adapter(tmp_path / "small").pairs.items():
        squares = factor(read_adapter(hat).pairs[path]).sigma.square()
        rank = pair.config.rank
        assert squares[:rank].sum() >= 0.6 * squares.sum() > squares[: rank - 1].sum()


def test_a_rank_that_is_there_already_changes_nothing_but_the_rounding(hat: Path, tmp_path: Path) -> None:
    done = reduce_rank(hat, tmp_path / "same", rank=64)
    assert {linear.rank for linear in done.linears} == {8} and done.error < 1e-6


def test_an_untrained_hat_becomes_one_of_rank_one(hf_folder: Path, tmp_path: Path) -> None:
    from lowrank.adapters import add_adapter
    from lowrank.adapters.files import save_adapter
    from lowrank.checkpoints.load import load

    model = load(hf_folder / "base", "fp32")
    add_adapter(model, "new", rank=4)
    save_adapter(model, "new", tmp_path / "new")
    done = reduce_rank(tmp_path / "new", tmp_path / "small", energy=0.9)
    assert {linear.rank for linear in done.linears} == {1} and done.error == 0


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ({}, "give rank or energy, one of the two"),
        ({"rank": 2, "energy": 0.5}, "give rank or energy, one of the two"),
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"energy": 1.5}, "energy must be above 0 and at most 1, got 1.5"),
    ],
    ids=str,
)
def test_a_size_that_is_none_is_told_in_one_line(size: dict[str, float], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        reduce_rank(tmp_path / "nowhere", tmp_path / "small", **size)
