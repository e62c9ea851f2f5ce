"""The hash of a model's state: the same for what gives the same bits in another process, another for all else."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lowrank
from lowrank.layers.model_state import active_adapters, sha256_of_state
from lowrank.model.llama import Llama

from .conftest import fill


@torch.inference_mode()
def hashed(model: Llama) -> str:
    active = active_adapters(model)
    assert active is not None
    return sha256_of_state(model, active)


def in_hats(folder: Path, *names: str, **options: Any) -> Llama:
    model = lowrank.load(folder, **{"weights": "nf4-dq", **options})
    for name in names:
        lowrank.add_adapter(model, name, rank=4, seed=len(name))
        fill(model, name, len(name))
        lowrank.adapters.rows_module(model, "tok_embeddings").add(
            name, torch.ones(2, model.config.dim), torch.tensor([4, 7])
        )
    lowrank.use_adapter(model, "worn" if "worn" in names else None)
    return model


def test_it_is_that_of_the_model_and_of_what_it_wears(hf_folder: Path) -> None:
    base, worn = hashed(in_hats(hf_folder / "base")), hashed(in_hats(hf_folder / "base", "worn"))
    assert re.fullmatch(r"[0-9a-f]{64}", base) and base != worn
    assert hashed(in_hats(hf_folder / "base", "other", "worn", "idle")) == worn
    assert hashed(in_hats(hf_folder / "base")) == base


def index(model: Llama) -> None:
    rows = lowrank.adapters.rows_module(model, "tok_embeddings")
    rows.index["worn"] = torch.tensor([4, 8])


CHANGES: dict[str, Callable[[Llama], Any]] = {
    "a code": lambda model: model.layers[1].attention.wq.base.codes[0].add_(1),
    "a norm": lambda model: model.norm.weight.data[0].add_(1),
    "a number of the hat": lambda model: model.layers[0].attention.wq.lora_B["worn"].data[0].add_(1),
    "the weight of the hat": lambda model: setattr(model.layers[0].attention.wq, "active", (("worn", 0.5),)),
    "which rows the hat replaces": index,
    "the mode": lambda model: model.train(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_another_after_a_change(change: str, hf_folder: Path) -> None:
    model = in_hats(hf_folder / "base", "worn")
    before = hashed(model)
    CHANGES[change](model)
    assert hashed(model) != before


@pytest.mark.parametrize(
    "options", [{"dtype": torch.bfloat16}, {"weights": "int8"}, {"weights": "fp4-dq"}, {"head": "int8"}]
)
def test_it_is_another_for_each_way_to_hold_a_base(options: dict[str, Any], hf_folder: Path) -> None:
    assert hashed(in_hats(hf_folder / "base", **options)) != hashed(in_hats(hf_folder / "base"))


def test_it_is_another_for_other_threads_and_another_library_of_a_vendor(
    hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = in_hats(hf_folder / "base")
    found = {hashed(model)}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    found.add(hashed(model))
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    found.add(hashed(model))
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert len({*found, hashed(model)}) == 4
