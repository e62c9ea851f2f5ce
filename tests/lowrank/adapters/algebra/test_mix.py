"""Several hats as one: PEFT's matrices and products under every one of its methods, and the exact sum."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peers import peft, transformers
from random_hat import make_hat
from torch import Tensor

from lowrank.adapters import adapter_names, use_adapter
from lowrank.adapters.algebra.combine import METHODS, Combination
from lowrank.adapters.algebra.mix import add_mixed_adapter, mix_adapters
from lowrank.adapters.files import load_adapter, read_adapter
from lowrank.adapters.merge import merge_folder
from lowrank.checkpoints.load import load
from lowrank.model.param_names import to_hf

WEIGHTS = (0.7, -0.4)
SAME = 2e-5  # of the largest number: LAPACK's SVD in float32 beside ours in float64, on matrices of 128 and 384
SEED = 5

# transformers tells peft 0.21.2 of a new name.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning"),
]


@pytest.fixture(scope="module")
def base(hf_folder: Path) -> Path:
    return hf_folder / "base"


@pytest.fixture(scope="module")
def hats(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two hats of one rank and different alphas, the second of fewer linears."""
    folder = tmp_path_factory.mktemp("hats")
    make_hat(base, folder / "first", alpha=8)
    make_hat(base, folder / "second", alpha=3, targets=["wq", "wv", "w2"])
    second = read_adapter(folder / "second")
    assert len(second.pairs) == 6
    return [folder / "first", folder / "second"]


def pefts(base: Path, hats: list[Path], **options: Any) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """PEFT's matrices of a mix by our path of each linear: lora_A, lora_B, and scaling lora_B lora_A."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(model, hats[0], "a")
    theirs.load_adapter(hats[1], "b")
    inject = theirs.base_model.inject_adapter

    def then_seed(*arguments: Any, **given: Any) -> None:
        inject(*arguments, **given)  # draws numbers of its own
        torch.manual_seed(SEED)

    theirs.base_model.inject_adapter = then_seed
    with torch.random.fork_rng():
        theirs.add_weighted_adapter(["a", "b"], list(WEIGHTS), "mix", **options)
    modules = dict(theirs.named_modules())
    paths = read_adapter(hats[0]).pairs
    layers = {path: modules[f"base_model.model.{to_hf(path)}"] for path in paths}
    return {
        path: (layer.lora_A["mix"].weight.data, layer.lora_B["mix"].weight.data, layer.get_delta_weight("mix").detach())
        for path, layer in layers.items()
    }


def options_of(method: str) -> dict[str, Any]:
    return {"density": 0.3} if Combination.is_pruned(method) else {}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_mix_is_that_of_peft(method: str, base: Path, hats: list[Path], tmp_path: Path) -> None:
    how = Combination(method, seed=SEED, **options_of(method))
    mix_adapters(list(zip(hats, WEIGHTS, strict=True)), tmp_path / "mix", how)
    ours = read_adapter(tmp_path / "mix").pairs
    theirs = pefts(base, hats, combination_type=method, **options_of(method))
    assert ours.keys() == theirs.keys()
    for path, (lora_A, lora_B, delta) in theirs.items():
        torch.testing.assert_close(ours[path].delta(), delta, rtol=0, atol=SAME * float(delta.abs().max()))
        if method != "cat" and not method.endswith(
            "svd"
        ):  # no singular vectors, and no rank that PEFT fills with zeros
            assert torch.equal(ours[path].lora_A, lora_A) and torch.equal(ours[path].lora_B, lora_B)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"rank": 2}, {"rank": 9}, {"clamp": 0.9}, {"majority": "frequency"}], ids=str)
def test_the_options_of_a_mix_are_those_of_peft(
    options: dict[str, Any], base: Path, hats: list[Path], tmp_path: Path
) -> None:
    method = "ties_svd" if "majority" in options else "svd"
    mix_adapters(
        list(zip(hats, WEIGHTS, strict=True)), tmp_path / "mix", Combination(method, **options, **options_of(method))
    )
    named = {"rank": "svd_rank", "clamp": "svd_clamp", "majority": "majority_sign_method"}
    theirs = pefts(
        base,
        hats,
        combination_type=method,
        **{named[key]: value for key, value in options.items()},
        **options_of(method),
    )
    for path, pair in read_adapter(tmp_path / "mix").pairs.items():
        delta = theirs[path][2]
        torch.testing.assert_close(pair.delta(), delta, rtol=0, atol=SAME * float(delta.abs().max()))


@pytest.mark.slow
def test_a_mix_of_all_ranks_is_worn_merged_and_exported_as_the_mix_in_memory(
    base: Path, hats: list[Path], hf_reference: dict[str, Tensor], tmp_path: Path, assert_logits_equal
) -> None:
    done = mix_adapters(list(zip(hats, WEIGHTS, strict=True)), tmp_path / "mix", Combination("cat"))
    assert done.error < 1e-6
    tokens, model = hf_reference["tokens"], load(base, "fp32")
    for name, folder in zip("ab", hats, strict=True):
        load_adapter(model, name, folder)
    use_adapter(model, dict(zip("ab", WEIGHTS, strict=True)))
    expected = model(tokens)
    load_adapter(model, "mix", tmp_path / "mix")
    use_adapter(model, "mix")
    assert_logits_equal(model(tokens), expected)
    assert_logits_equal(
        load(merge_folder(base, tmp_path / "mix", tmp_path / "m", "fp32").folder, "fp32")(tokens), expected
    )
    plain = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "mix")
    assert_logits_equal(theirs(tokens).logits.detach(), expected)


def test_a_mix_is_added_to_a_model_as_one_more_hat(base: Path, hats: list[Path], tmp_path: Path) -> None:
    model = load(base, "fp32")
    for name, folder in zip("ab", hats, strict=True):
        load_adapter(model, name, folder)
    how = Combination("ties", density=0.5)
    done = add_mixed_adapter(model, "mix", {"a": 0.7, "b": -0.4}, how)
    written = mix_adapters(list(zip(hats, WEIGHTS, strict=True)), tmp_path / "mix", how)
    assert adapter_names(model) == ["a", "b", "mix"]
    assert done.error == pytest.approx(written.error)
    layer = model.layers[0].attention.wq
    assert torch.equal(layer.lora_A["mix"], read_adapter(tmp_path / "mix").pairs["layers.0.attention.wq"].lora_A)


def test_the_told_error_is_the_distance_from_the_weighted_sum(hats: list[Path], tmp_path: Path) -> None:
    done = mix_adapters([(hats[0], 0.7), (hats[1], -0.4)], tmp_path / "mix", Combination("linear"))
    first, second = (read_adapter(hat).pairs for hat in hats)
    new = read_adapter(tmp_path / "mix").pairs
    for linear in done.linears:
        wanted = 0.7 * first[linear.path].delta().double()
        if linear.path in second:
            wanted -= 0.4 * second[linear.path].delta().double()
        off = new[linear.path].delta().double() - wanted
        assert linear.wanted == pytest.approx(float(wanted.norm()), rel=1e-5)
        assert linear.off == pytest.approx(float(off.norm()), rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_the_best_product_of_a_rank_is_nearer_than_any_other_method(hats: list[Path], tmp_path: Path) -> None:
    errors = {}
    for method in METHODS:
        if method != "cat":
            how = Combination(method, **options_of(method))
            errors[method] = mix_adapters([(hats[0], 0.7), (hats[1], 0.4)], tmp_path / method, how).error
    assert min(errors, key=lambda method: errors[method]) == "svd"


def test_the_record_says_what_a_mix_was_made_of(hats: list[Path], tmp_path: Path) -> None:
    mix_adapters([(hat, 1.0) for hat in hats], tmp_path / "mix")
    record = read_adapter(tmp_path / "mix").record
    assert record["made"]["by"] == "mix" and record["made"]["weights"] == [1.0, 1.0]
    assert record["base"] == read_adapter(hats[0]).record["base"]
    assert [source["weights_sha256"] for source in record["made"]["of"]] == [
        read_adapter(hat).record["weights_sha256"] for hat in hats
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "sum"}, "method must be one of cat, linear"),
        ({"method": "ties"}, "density must be given for method 'ties', got None"),
        ({"method": "svd", "density": 0.5}, "density must be left out for method 'svd', got 0.5"),
        ({"method": "ties", "density": 1.0}, "density must be above 0 and below 1, got 1.0"),
        ({"method": "cat", "rank": 4}, "rank is of the methods svd"),
        ({"method": "svd", "rank": 0}, "rank must be at least 1, got 0"),
        ({"method": "svd", "clamp": 0.2}, "clamp must be a quantile above 0.5"),
        ({"method": "ties", "density": 0.5, "majority": "all"}, "majority must be 'total' or 'frequency', got 'all'"),
    ],
    ids=str,
)
def test_an_option_out_of_place_is_told_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Combination(**options)


def test_hats_of_two_ranks_are_not_added_matrix_by_matrix(base: Path, hats: list[Path], tmp_path: Path) -> None:
    make_hat(base, tmp_path / "third", rank=3)
    with pytest.raises(ValueError, match=r"adds matrices of one rank, the hats have \[4, 3\]: take cat or svd"):
        mix_adapters([(hats[0], 1.0), (tmp_path / "third", 1.0)], tmp_path / "mix", Combination("linear"))
    assert not (tmp_path / "mix").exists()
    mixed = mix_adapters([(hats[0], 1.0), (tmp_path / "third", 1.0)], tmp_path / "mix", Combination("cat"))
    assert {linear.rank for linear in mixed.linears} == {7}


def test_hats_of_two_bases_a_dora_and_no_hat_are_refused(
    hats: list[Path], base: Path, golden: Path, tmp_path: Path
) -> None:
    make_hat(golden / "meta-tiny-mha", tmp_path / "other")
    with pytest.raises(ValueError, match="made for the base"):
        mix_adapters([(hats[0], 1.0), (tmp_path / "other", 1.0)], tmp_path / "mix")
    make_hat(base, tmp_path / "dora", dora=True)
    with pytest.raises(ValueError, match="a DoRA has no place in a hat made of hats"):
        mix_adapters([(hats[0], 1.0), (tmp_path / "dora", 1.0)], tmp_path / "mix")
    with pytest.raises(ValueError, match="one hat or more, got none"):
        mix_adapters([], tmp_path / "mix")
    with pytest.raises(ValueError, match="must be a finite number, got nan"):
        mix_adapters([(hats[0], float("nan"))], tmp_path / "mix")
