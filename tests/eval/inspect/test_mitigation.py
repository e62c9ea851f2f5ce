"""Hats without intruders: PEFT's mitigation, the formula on whole matrices, and what it gives back."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peers import peft, transformers
from random_hat import make_hat
from torch import Tensor

import lowrank
from lowrank.adapters.files import read_adapter
from lowrank.checkpoints.load import load, load_tokenizer
from lowrank.data.documents.document import make_documents
from lowrank.data.encoding.batching import encode_all
from lowrank.eval.inspect.adapter import IntruderSearch, inspect_adapter
from lowrank.eval.inspect.forgetting import measure_forgetting, taught_examples
from lowrank.eval.inspect.mitigation import mitigate_intruders
from lowrank.eval.metrics.perplexity import completion_loss
from lowrank.layers.dora import frozen_weight
from lowrank.model.param_names import to_hf

EXACT = IntruderSearch(exact=True)
SAME = 1e-4  # of the largest number: two SVDs in float32 beside ours

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning"),
]


@pytest.fixture(scope="module")
def base(hf_folder: Path) -> Path:
    return hf_folder / "base"


@pytest.fixture(scope="module")
def hat(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hat that is larger than its base in directions of its own."""
    folder = tmp_path_factory.mktemp("large") / "hat"
    make_hat(base, folder, alpha=400)
    return folder


def weight_of(base: Path, path: str) -> Tensor:
    return frozen_weight(load(base, "fp32").get_submodule(path)).double()


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, False])
def test_every_intruder_is_scaled_and_nothing_else(exact: bool, base: Path, hat: Path, tmp_path: Path) -> None:
    done = mitigate_intruders(hat, base, tmp_path / "out", keep=0.25, search=IntruderSearch(exact=exact))
    assert done.found > 20
    before, after = read_adapter(hat).pairs, read_adapter(tmp_path / "out").pairs
    for path, intruders in done.intruders.items():
        w = weight_of(base, path)
        u, s, vh = torch.linalg.svd(w + before[path].delta().double(), full_matrices=False)
        scaled = torch.ones_like(s)
        scaled[: len(intruders.at_most)][torch.tensor(intruders.at_most) < 0.5] = 0.25
        expected = (u * s * scaled) @ vh - w
        torch.testing.assert_close(
            after[path].delta().double(), expected, rtol=0, atol=SAME * float(expected.abs().max()), msg=path
        )


@pytest.mark.slow
def test_a_mitigated_hat_is_pefts_where_the_left_vectors_are_a_basis(base: Path, hat: Path, tmp_path: Path) -> None:
    mitigate_intruders(hat, base, tmp_path / "out", keep=0.75, search=EXACT, rank=4)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(model, hat)
    from peft.tuners.lora.intruders import reduce_intruder_dimension

    reduce_intruder_dimension(theirs, mitigation_lambda=0.75, logging_sink=None)
    modules, compared = dict(theirs.named_modules()), 0
    for path, pair in read_adapter(tmp_path / "out").pairs.items():
        if re.search("w1|w3", path):  # more outputs than inputs
            continue
        delta = modules[f"base_model.model.{to_hf(path)}"].get_delta_weight("intruder_reduced").detach()
        torch.testing.assert_close(pair.delta(), delta, rtol=0, atol=SAME * float(delta.abs().max()))
        compared += 1
    assert compared == 10


@pytest.mark.slow
def test_all_of_an_intruder_leaves_the_hat_as_it_was_and_none_of_it_leaves_fewer(
    base: Path, hat: Path, tmp_path: Path
) -> None:
    whole = mitigate_intruders(hat, base, tmp_path / "whole", keep=1.0, search=EXACT)
    for path, pair in read_adapter(tmp_path / "whole").pairs.items():
        delta = read_adapter(hat).pairs[path].delta()
        torch.testing.assert_close(pair.delta(), delta, rtol=0, atol=SAME * float(delta.abs().max()))
    mitigate_intruders(hat, base, tmp_path / "none", keep=0.0, search=EXACT)
    again = inspect_adapter(tmp_path / "none", base, intruders=EXACT)
    assert sum(linear.intruders.found for linear in again.linears if linear.intruders) < whole.found / 4


def test_a_small_hat_is_left_alone_to_the_byte(base: Path, tmp_path: Path) -> None:
    make_hat(base, tmp_path / "small", alpha=0.01)
    done = mitigate_intruders(tmp_path / "small", base, tmp_path / "out", search=EXACT)
    assert done.found == 0 and done.adapter.error == 0
    before, after = (read_adapter(tmp_path / name).pairs for name in ("small", "out"))
    assert all(torch.equal(before[path].lora_B, after[path].lora_B) for path in before)


def test_a_base_in_metas_layout_has_the_same_mitigated_hat(golden: Path, tmp_path: Path) -> None:
    """The rows of q and k go to the base's order and back: keep = 1 is the hat as it was."""
    base = golden / "meta-tiny-mha"
    make_hat(base, tmp_path / "hat", alpha=400, targets=["wq", "wk"])
    done = mitigate_intruders(tmp_path / "hat", base, tmp_path / "out", keep=1.0, search=EXACT)
    assert done.found > 0
    for path, pair in read_adapter(tmp_path / "hat").pairs.items():
        found = read_adapter(tmp_path / "out").pairs[path].delta()
        torch.testing.assert_close(found, pair.delta(), rtol=0, atol=SAME * float(found.abs().max()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": 1.5}, "keep must be from 0 to 1, got 1.5"),
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"search": IntruderSearch(0)}, "look at 1 or more"),
    ],
    ids=["keep", "rank", "search"],
)
def test_a_number_out_of_range_is_told_before_any_work(
    options, said: str, base: Path, hat: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        mitigate_intruders(hat, base, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_forgetting_is_the_difference_of_losses_with_its_interval(embedded: Path, tmp_path: Path) -> None:
    make_hat(embedded, tmp_path / "hat", alpha=40)
    tokenizer = load_tokenizer(embedded)
    task, _ = encode_all(
        [entry.conversation for entry in make_documents(12, seed=7, split="test")], tokenizer, "alpaca", 512
    )
    kept = [example for example in taught_examples(tokenizer, 16) if len(example) <= 512]
    make_hat(embedded, tmp_path / "mild", alpha=20)
    hats = {"hat": tmp_path / "hat", "mild": tmp_path / "mild"}
    found = measure_forgetting(embedded, hats, task, kept, weights="fp32")
    assert found.base_kept == pytest.approx(completion_loss(load(embedded, "fp32"), kept))
    hat, mild = found.adapters
    assert hat.lost is None and hat.recovered is None and mild.lost and mild.recovered
    assert mild.recovered.difference == pytest.approx(mild.kept - hat.kept)
    assert mild.recovered.low <= mild.recovered.difference <= mild.recovered.high < 0  # half as far from the base
    assert mild.lost.difference == pytest.approx(mild.task - hat.task)
    assert hat.forgotten.difference == pytest.approx(hat.kept - found.base_kept)
    assert hat.forgotten.low < hat.forgotten.difference < hat.forgotten.high
    assert hat.forgotten.is_clear_of_zero  # random numbers teach nothing
    assert "less the base" in found.table() and "kept, less hat" in found.table()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"hats": {}}, "one hat or more, got none"),
        ({"folder": "elsewhere"}, "kept must name documents that the base knows"),
    ],
    ids=str,
)
def test_forgetting_of_nothing_is_told_in_one_line(options: dict[str, Any], said: str, hat: Path) -> None:
    with pytest.raises(ValueError, match=said):
        lowrank.inspect.forgetting(**{"folder": "embedded", "hats": hat, **options})
