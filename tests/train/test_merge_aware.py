"""Training with the weights that a merge stores: the bytes are those of the merge, and runs go on to the same bits."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lowrank
from lowrank.adapters import lora_layers
from lowrank.adapters.merge import merge_folder
from lowrank.checkpoints.config_files import Format
from lowrank.checkpoints.open_base import open_base
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.checkpoints.stored_weight import to_stored
from lowrank.data.encoding.batching import Example
from lowrank.eval.metrics.perplexity import completion_losses
from lowrank.kernels import ops
from lowrank.model.llama import Llama
from lowrank.train import trainer
from lowrank.train.config import TrainConfig

Q = "nf4-dq"
HAT = "hat/adapter_model.safetensors"


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 512, (6 + number,), generator=generator).tolist() for number in range(8)]
    return [Example(str(number), tuple(row), (-100, *row[1:])) for number, row in enumerate(rows)]


def config(out: Path, base: Path, adapter: dict[str, object] | None = None, **run: object) -> TrainConfig:
    table = {"out": str(out), "epochs": 3, "batch": 4, "checkpoint_every": 100, **run}
    return TrainConfig.from_dict(
        {
            "base": {"path": str(base), "weights": Q},
            "adapter": {"rank": 4, "merge_aware": Q, **(adapter or {})},
            "optimizer": {"lr": 1e-2},
            "run": table,
        }
    )


def trained(out: Path, base: Path, examples: list[Example], **options: object) -> Llama:
    model = lowrank.load(base, Q)
    trainer.train(model, examples, config(out, base, **options), progress=False)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 4], ids=["every-step", "every-4"])
@pytest.mark.parametrize("name", ["meta-tiny-mha", "hf-tiny-qlora/base"])
@pytest.mark.parametrize("is_quantized", [False, True], ids=["dense", "stored-in-4-bit"])
def test_the_merged_bytes_are_those_that_were_trained(
    golden: Path, examples: list[Example], tmp_path: Path, name: str, is_quantized: bool, every: int
) -> None:
    base = golden / name
    if is_quantized:
        base = quantize_folder(base, tmp_path / "quantized", Q)
    model = trained(tmp_path / "run", base, examples, adapter={"requantize_every": every})
    format: Format = "hf" if open_base(base).config.rope_layout == "half" else "meta"
    merge_folder(base, tmp_path / "run" / "hat", tmp_path / "merged", Q, format=format)
    stored = lowrank.load(tmp_path / "merged", Q)
    ours = {path: layer.requantized for path, layer in lora_layers(model).items()}
    assert len(ours) == 7 * model.config.n_layers
    moved = 0
    for path, rounded in ours.items():
        assert rounded is not None and rounded.since is None
        theirs = to_stored(stored.get_submodule(path).quantized)
        mine = to_stored(rounded.weight)
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert torch.equal(mine[key], theirs[key]), (path, key)
        bare = to_stored(lora_layers(model)[path].base.quantized)
        moved += int((bare[".weight"] != mine[".weight"]).sum()) if ".weight" in bare else 1
    assert moved > 0
    torch.testing.assert_close(completion_losses(model, examples), completion_losses(stored, examples))
    if format == "meta":
        with pytest.warns(UserWarning, match="rows of q and k are moved: format='meta' keeps them"):
            merge_folder(base, tmp_path / "run" / "hat", tmp_path / "other", Q)


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 4])
def test_a_run_that_is_resumed_comes_to_the_same_bits(
    golden: Path, examples: list[Example], tmp_path: Path, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = golden / "meta-tiny-mha"
    trained(tmp_path / "whole", base, examples, adapter={"requantize_every": every})
    cut, calls, original = (
        config(tmp_path / "cut", base, {"requantize_every": every}, checkpoint_every=1),
        [],
        trainer.finish,
    )

    def interrupted(*arguments: object) -> object:
        calls.append(None)
        if len(calls) == 4:  # between two roundings, if they are four steps apart
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(trainer, "finish", interrupted)
        trainer.train(lowrank.load(base, Q), examples, cut, progress=False)
    model = lowrank.load(base, Q)
    trainer.train(model, examples, cut, resume=True, progress=False)
    whole, resumed = (load_file(tmp_path / run / HAT) for run in ("whole", "cut"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_between_roundings_the_change_is_added_in_full_precision(
    golden: Path, examples: list[Example], tmp_path: Path
) -> None:
    base = golden / "meta-tiny-mha"
    model = lowrank.load(base, Q)
    run = trainer.Trainer(model, examples, config(tmp_path, base, {"requantize_every": 4}))
    layer = lora_layers(model)["layers.0.attention.wq"]
    x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(0))
    assert run.merge_aware is not None and layer.requantized is not None
    rounded = layer.requantized.weight
    with torch.no_grad():
        layer.lora_B["hat"].add_(0.01)
    run.merge_aware.after_step(1, is_last=False)
    change = layer.configs["hat"].scaling * (layer.lora_B["hat"] @ layer.lora_A["hat"])
    expected = x @ (ops.dequantize(rounded) + change).T
    for context in (torch.enable_grad, torch.no_grad):
        with context():
            torch.testing.assert_close(layer(x), expected)
    run.merge_aware.after_step(4, is_last=False)
    assert layer.requantized.since is None and layer.requantized.weight is not rounded


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"adapter": {"dropout": 0.1}}, r"adapter\.dropout must be left at its default with adapter\.merge_aware"),
        ({"adapter": {"dora": True}}, r"adapter\.dora must be left"),
        ({"adapter": {"start": "pissa"}}, r"adapter\.start must be left"),
        ({"base": {"weights": "bf16"}}, r"base\.weights must be a 4- or 8-bit format"),
        ({"adapter": {"merge_aware": "nf3"}}, r"adapter\.merge_aware must be one of"),
        ({"adapter": {"requantize_every": 0}}, r"adapter\.requantize_every must be at least 1"),
    ],
)
def test_what_has_no_place_in_it_is_refused(tables: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict({**tables, "adapter": {"merge_aware": Q, **tables.get("adapter", {})}})
