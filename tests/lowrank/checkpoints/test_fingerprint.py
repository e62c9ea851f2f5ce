"""The fingerprint: one base, whatever its precision and layout; another base, another fingerprint."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lowrank import __version__
from lowrank.checkpoints.fingerprint import (
    Fingerprint,
    check_same_base,
    check_weights,
    fingerprint_of,
    read_record,
    record,
)
from lowrank.checkpoints.load import load
from lowrank.model.checkpoint import open_checkpoint
from lowrank.model.llama import Llama


def fingerprint(**tensors: torch.Tensor) -> str:
    found = Fingerprint()
    for name, tensor in tensors.items():
        found.add(name, tensor)
    return found.hexdigest()


ONES = torch.ones(3, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
def test_the_precision_does_not_show(dtype: torch.dtype) -> None:
    assert fingerprint(norm=ONES.to(dtype)) == fingerprint(norm=ONES)


def test_metas_bfloat16_and_hugging_faces_float16_are_one_base() -> None:
    generator = torch.Generator().manual_seed(0)
    exponents = torch.randint(-40, 10, (10_000,), generator=generator)
    meta = torch.ldexp(torch.randn(10_000, generator=generator), exponents).to(torch.bfloat16)
    assert not torch.equal(meta.to(torch.float16).to(torch.bfloat16), meta)  # small numbers lose digits
    assert fingerprint(norm=meta) == fingerprint(norm=meta.to(torch.float16)) == fingerprint(norm=meta.float())


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


def test_a_record_names_the_program_and_the_base(make_llama: Callable[..., Llama]) -> None:
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


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"base": "7b"}, "base must be a JSON object, got '7b'"),
        ({"merged": []}, "merged must be a JSON object"),
        ({"file_rope_layout": "interleaved"}, "file_rope_layout must be 'half', as in PEFT's files, got 'interleaved'"),
    ],
    ids=str,
)
def test_a_record_that_is_not_ours_is_refused(record: dict[str, object], told: str, tmp_path: Path) -> None:
    (tmp_path / "lowrank.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=told):
        read_record(tmp_path)


def test_the_file_of_matrices_is_the_one_that_was_recorded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    check_weights({"weights_sha256": hashlib.sha256(b"abc").hexdigest()}, tmp_path / "a")
    check_weights({}, tmp_path / "a")
    with pytest.raises(
        ValueError, match=r"has the SHA-256 ba7816bf8f01cfea, but lowrank.json beside it is of cccccccc"
    ):
        check_weights({"weights_sha256": "c" * 64}, tmp_path / "a")


@pytest.mark.parametrize(
    "folder", ["meta-tiny-mha", "meta-tiny-gqa-mp2", "hf-tiny-qlora/base", "hf-tiny-qlora/base-bnb-nf4-dq"]
)
def test_the_fingerprint_of_a_folder_is_that_of_the_model(folder: str, golden: Path) -> None:
    assert fingerprint_of(open_checkpoint(golden / folder)) == load(golden / folder).source["fingerprint"]
