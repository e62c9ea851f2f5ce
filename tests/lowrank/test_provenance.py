"""The fingerprint: one base, whatever its precision and layout; another base, another fingerprint."""

import pytest
import torch

from lowrank import __version__
from lowrank.provenance import Fingerprint, check_same_base, record


def fingerprint(**tensors: torch.Tensor) -> str:
    found = Fingerprint()
    for name, tensor in tensors.items():
        found.add(name, tensor)
    return found.hexdigest()


ONES = torch.ones(3, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
def test_the_precision_does_not_show(dtype: torch.dtype) -> None:
    assert fingerprint(norm=ONES.to(dtype)) == fingerprint(norm=ONES)


def test_the_order_of_reading_does_not_show() -> None:
    assert fingerprint(a=ONES, b=2 * ONES) == fingerprint(b=2 * ONES, a=ONES)


@pytest.mark.parametrize(
    "other",
    [
        {"a": 2 * ONES, "b": ONES},
        {"a": ONES},
        {"a": ONES, "c": 2 * ONES},
        {"a": ONES, "b": 2 * ONES + ONES.triu() / 64},
    ],
    ids=["swapped", "missing", "renamed", "changed"],
)
def test_another_base_has_another_fingerprint(other: dict[str, torch.Tensor]) -> None:
    assert fingerprint(**other) != fingerprint(a=ONES, b=2 * ONES)


def test_a_view_is_read_by_its_values() -> None:
    w = torch.arange(12.0).view(3, 4)
    assert fingerprint(a=w.T) == fingerprint(a=w.T.contiguous())


def test_a_record_names_the_program_and_the_base(make_llama) -> None:
    model = make_llama()
    model.source = {"weights": "nf4", "fingerprint": "f" * 64}
    recorded = record(model, "w" * 64, data="sha256:1")
    assert recorded["lowrank"] == __version__
    assert recorded["base"] == {"weights": "nf4", "fingerprint": "f" * 64, "rope_layout": "interleaved"}
    assert (recorded["file_rope_layout"], recorded["data"]) == ("half", "sha256:1")


@pytest.mark.parametrize(
    ("theirs", "ours", "refused"), [("a" * 64, "a" * 64, False), ("a" * 64, "b" * 64, True), ("a" * 64, "", False)]
)
def test_a_hat_of_another_base_is_told_with_both_fingerprints(theirs: str, ours: str, refused: bool) -> None:
    source = {"fingerprint": ours} if ours else {}
    recorded = {"base": {"fingerprint": theirs}}
    if refused:
        with pytest.raises(ValueError, match=f"hat: .*{theirs[:16]}.*{ours[:16]}"):
            check_same_base(source, recorded, "hat")
    else:
        check_same_base(source, recorded, "hat")
    check_same_base(source, {}, "hat")
