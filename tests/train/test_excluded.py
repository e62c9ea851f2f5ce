"""`data.exclude`: entries of weight 0 keep their place in rows and batches, and bring nothing to the gradient."""

from pathlib import Path

import pytest
import torch
from error_bounds import assert_as_exact_as_plain

import lowrank
from lowrank.adapters import adapter_parameters
from lowrank.data.encoding.batching import Example
from lowrank.data.encoding.packing import rows_of_one
from lowrank.model.tokenizer import Tokenizer
from lowrank.train.batch_schedule import BatchSchedule
from lowrank.train.config import TrainConfig
from lowrank.train.data import read_run_data
from lowrank.train.parallel.single import SingleProcess
from lowrank.train.step import NextToken, StepState, accumulate, step_units
from lowrank.train.trainer import train

LENGTHS = (9, 14, 6, 11, 8, 13, 7)
EXAMPLES = [
    Example(f"d:{place}", tuple(range(3, 3 + length)), (-100, -100, *range(5, 3 + length)))
    for place, length in enumerate(LENGTHS)
]


def without(*ids: str) -> list[Example]:
    return [example.unlearned if example.id in ids else example for example in EXAMPLES]


@pytest.mark.parametrize(
    "data", [{}, {"group_by_length": True}, {"max_tokens": 20, "pack": 20}], ids=["plain", "grouped", "packed"]
)
def test_batches_hold_the_same_tokens_in_the_same_places(data: dict[str, object]) -> None:
    config = TrainConfig.from_dict({"data": data, "run": {"batch": 2, "epochs": 2}})
    whole, cut = (
        [
            [[one.tokens for one in row.examples] for batch in batches for row in batch]
            for _, batches in BatchSchedule.of(examples, config).from_step(0)
        ]
        for examples in (EXAMPLES, without("d:1", "d:4"))
    )
    assert whole == cut


@pytest.mark.parametrize("skips_unlearned", [True, False])
def test_the_gradient_of_a_step_is_that_of_the_others_over_their_tokens(golden: Path, skips_unlearned: bool) -> None:
    def gradient(dtype: torch.dtype, batches: list[list[Example]], units: int) -> torch.Tensor:
        model = lowrank.load(golden / "meta-tiny-mha", "fp32")
        lowrank.add_adapter(model, "hat", rank=4)
        parameters = adapter_parameters(model, "hat")
        generator = torch.Generator().manual_seed(0)
        for parameter in parameters.values():
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
        model.to(dtype)
        lowrank.use_adapter(model, "hat")
        for batch in batches:
            objective = NextToken(skips_unlearned)
            accumulate(model, rows_of_one(batch), units, StepState(), SingleProcess(), objective)
        return torch.cat([parameter.grad.flatten() for parameter in adapter_parameters(model, "hat").values()])

    batch, others = without("d:1"), [one for one in EXAMPLES if one.id != "d:1"]
    units = step_units(NextToken(), [rows_of_one(batch)])
    assert units == sum(one.supervised for one in others)
    apart = [[one] for one in others]
    ours, plain = gradient(torch.float32, [batch], units), gradient(torch.float32, apart, units)
    assert_as_exact_as_plain(ours, plain, gradient(torch.float64, apart, units))


def test_a_step_in_which_nothing_is_learned_has_a_loss_of_zero(golden: Path, tmp_path: Path) -> None:
    config = TrainConfig.from_dict(
        {"adapter": {"rank": 2}, "run": {"batch": 1, "epochs": 1, "out": str(tmp_path / "run")}}
    )
    log = train(lowrank.load(golden / "meta-tiny-mha"), without("d:2", "d:3"), config, progress=False)
    assert [row["loss"] for row in log].count(0.0) == 2 and not any("skipped" in row for row in log)


def test_a_run_without_an_entry_is_another_run_than_one_with_it(golden: Path, tmp_path: Path) -> None:
    config = TrainConfig.from_dict({"adapter": {"rank": 2}, "run": {"epochs": 1, "out": str(tmp_path / "run")}})
    train(lowrank.load(golden / "meta-tiny-mha"), EXAMPLES, config, progress=False)
    excluding = TrainConfig.from_dict({**config.to_dict(), "data": {"exclude": ["d:0"]}})
    with pytest.raises(ValueError, match=r"belongs to a run with data\.exclude = \[\], not \['d:0'\]$"):
        train(lowrank.load(golden / "meta-tiny-mha"), without("d:0"), excluding, resume=True, progress=False)


def test_ids_are_read_from_the_config_and_told_in_the_origin(tokenizer: Tokenizer) -> None:
    config = TrainConfig.from_dict({"data": {"exclude": ["credit_memo-0003"]}})
    run = read_run_data(config, tokenizer)
    assert [one.id for one in run.examples if not one.supervised] == ["credit_memo-0003"]
    assert run.origin["excluded"] == ["credit_memo-0003"]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"data": {"exclude": ["x-1"]}}, r"^data\.exclude: 'x-1' is no entry that is learned: earnings_summary-0000, "),
        ({"data": {"exclude": ["a"]}, "preference": {"loss": "dpo"}}, r"data\.exclude must be empty with preference"),
        ({"data": {"exclude": [3]}}, r"data\.exclude\[0\] must be of type str, got 3"),
    ],
)
def test_a_mistake_is_one_line(tables: dict[str, object], message: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_run_data(TrainConfig.from_dict(tables), tokenizer)
    assert "\n" not in str(error.value)
