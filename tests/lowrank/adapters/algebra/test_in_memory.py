"""A hat in the weights of a model in memory: its logits, and the base's bytes when it is taken off."""

import hashlib
from pathlib import Path

import pytest
import torch
from random_hat import make_hat
from torch import Tensor

from lowrank.adapters import adapter_names, add_adapter, use_adapter
from lowrank.adapters.algebra.in_memory import merge_adapter, merged_adapter
from lowrank.adapters.files import load_adapter
from lowrank.checkpoints.load import load
from lowrank.model.llama import Llama


@pytest.fixture
def base(hf_folder: Path) -> Path:
    return hf_folder / "base"


def worn(base: Path, folder: Path, weights: str = "fp32") -> Llama:
    make_hat(base, folder)
    model = load(base, weights)
    load_adapter(model, "a", folder)
    load_adapter(model, "b", folder)
    return model


def digest(model: Llama) -> str:
    """SHA-256 over the name, the place and the bytes of every tensor of a model."""
    total = hashlib.sha256()
    for name, tensor in model.state_dict(keep_vars=True).items():
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        total.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


@pytest.mark.long
@pytest.mark.parametrize("weights", ["fp32", "bf16", "nf4-dq", "int8"])
@pytest.mark.parametrize("into", ["fp32", "bf16", "nf4-dq"])
def test_unmerged_the_base_has_its_bytes_and_its_logits(
    weights: str, into: str, base: Path, hf_reference: dict[str, Tensor], tmp_path: Path
) -> None:
    model, tokens = worn(base, tmp_path / "hat", weights), hf_reference["tokens"]
    use_adapter(model, "a")
    before, logits = digest(model), model(tokens)
    for _ in range(20):
        merge_adapter(model, {"a": 0.7, "b": 0.3}, into=into).unmerge()
    assert digest(model) == before
    assert torch.equal(model(tokens), logits) and adapter_names(model) == ["a", "b"]


def test_merged_it_has_the_logits_of_the_mix_and_no_hat_by_name(
    base: Path, hf_reference: dict[str, Tensor], tmp_path: Path, assert_logits_equal
) -> None:
    model, tokens = worn(base, tmp_path / "hat"), hf_reference["tokens"]
    bare = model(tokens)
    use_adapter(model, {"a": 0.7, "b": -0.3})
    expected = model(tokens)
    with merged_adapter(model, {"a": 0.7, "b": -0.3}) as merged:
        assert_logits_equal(model(tokens), expected)
        assert adapter_names(model) == []
        assert min(part.cosine for part in merged.survival) > 0.999
        with pytest.raises(ValueError, match="unknown adapter"):
            use_adapter(model, "a")
    use_adapter(model, None)
    assert torch.equal(model(tokens), bare)


def test_four_bits_keep_less_of_a_hat_and_say_so(base: Path, tmp_path: Path) -> None:
    model = worn(base, tmp_path / "hat", "nf4-dq")
    with merged_adapter(model, {"a": 0.1}, into="nf4-dq") as merged:
        assert max(part.cosine for part in merged.survival) < 0.9
    with pytest.raises(ValueError, match="is stored in 4 or 8 bits: into must name the format of the sum"):
        merge_adapter(model, "a")


def test_a_dora_is_merged_as_it_is_worn(
    base: Path, hf_reference: dict[str, Tensor], tmp_path: Path, assert_logits_equal
) -> None:
    model, tokens = make_hat(base, tmp_path / "dora", dora=True), hf_reference["tokens"]
    expected = model(tokens)
    with merged_adapter(model, "hat"):
        assert_logits_equal(model(tokens), expected)


def test_a_hat_on_top_is_to_be_dropped_before_the_base_comes_back(base: Path, tmp_path: Path) -> None:
    model = worn(base, tmp_path / "hat")
    merged = merge_adapter(model, "a")
    add_adapter(model, "new")
    with pytest.raises(ValueError, match="a hat that was added to the merged model: drop it first"):
        merged.unmerge()
    from lowrank.adapters import drop_adapter

    drop_adapter(model, "new")
    merged.unmerge()
    with pytest.raises(ValueError, match="unmerged already"):
        merged.unmerge()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("use", "into", "said"),
    [
        ("c", None, "unknown adapter 'c'"),
        (None, None, "merge one hat or one mix"),
        (["a", "b"], None, "merge one hat or one mix"),
        ("a", "nf3", "into must be one of fp32"),
        ({"a": float("inf")}, None, "must be a finite number"),
        ({"a": 1e30}, "fp16", "must be finite in fp16"),
    ],
    ids=str,
)
def test_what_cannot_be_merged_is_told_and_changes_nothing(use, into, said: str, base: Path, tmp_path: Path) -> None:
    model = worn(base, tmp_path / "hat")
    before = digest(model)
    with pytest.raises(ValueError, match=said):
        merge_adapter(model, use, into=into)
    assert digest(model) == before and adapter_names(model) == ["a", "b"]
