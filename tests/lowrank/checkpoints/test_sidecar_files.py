"""Files that go along with weights: the same whether they are fetched, quantized or merged."""

import json
import shutil
from pathlib import Path

import pytest

import lowrank
from lowrank.adapters.merge import merge_folder
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.checkpoints.sidecar_files import sidecar_files
from lowrank.hub.fetch import needed

SIDECARS = (
    "LICENSE", "LICENSE.txt", "NOTICE", "USE_POLICY.md", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "generation_config.json", "license.md", "special_tokens_map.json", "tokenizer.json",
    "tokenizer.model", "tokenizer_config.json",
)  # fmt: skip
OTHERS = ("README.md", "Responsible-Use-Guide.pdf", "pytorch_model.bin", "training_args.bin", "eval_results.json")


@pytest.fixture(params=["meta-tiny-mha", "hf-tiny-qlora/base"])
def base(request: pytest.FixtureRequest, golden: Path, tmp_path: Path) -> Path:
    """A base with everything beside its weights that a repository may have."""
    folder = Path(shutil.copytree(golden / request.param, tmp_path / "base"))
    for name in (*SIDECARS, *OTHERS):
        (folder / name).write_text(json.dumps({"file": name}))
    return folder


def sidecars_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name in (*SIDECARS, *OTHERS)}


def test_the_list_takes_licences_however_they_are_written_and_leaves_the_rest() -> None:
    assert sidecar_files((*OTHERS, *SIDECARS, "config.json", "params.json", "LICENCE", "my_license")) == sorted(
        (*SIDECARS, "LICENCE")
    )


def test_they_are_quantized_with_the_weights(base: Path, tmp_path: Path) -> None:
    out = quantize_folder(base, tmp_path / "out")
    assert sidecars_of(out) == {name: (base / name).read_bytes() for name in SIDECARS}
    assert json.loads((out / "quantization.json").read_text())["sha256"].keys() >= set(SIDECARS)


@pytest.mark.filterwarnings("ignore:.*params.json has no place for:UserWarning")
@pytest.mark.parametrize("format", ["hf", "meta"])
def test_they_are_merged_with_the_weights(format, base: Path, tmp_path: Path) -> None:
    model = lowrank.load(base, "fp32")
    lowrank.add_adapter(model, "hat", rank=2)
    lowrank.save_adapter(model, "hat", tmp_path / "hat")
    out = merge_folder(base, tmp_path / "hat", tmp_path / "out", "bf16", format=format).folder
    assert sidecars_of(out) == {name: (base / name).read_bytes() for name in SIDECARS}


@pytest.mark.parametrize(
    "weights",
    [
        ["params.json", "consolidated.00.pth", "checklist.chk"],
        ["config.json", "model.safetensors"],
        ["config.json", "model.safetensors", "quantization.json", "lowrank.json"],
    ],
    ids=["meta", "hf", "quantized-here"],
)
def test_they_are_fetched_with_the_weights(weights: list[str]) -> None:
    assert needed([*weights, *SIDECARS, *OTHERS], "o/n") == {*weights, *SIDECARS}


def test_a_hat_is_fetched_with_its_licence() -> None:
    hat = {"adapter_config.json", "adapter_model.safetensors", "lowrank.json"}
    licences = {"LICENSE", "LICENSE.txt", "NOTICE", "USE_POLICY.md", "license.md"}
    assert needed([*hat, *SIDECARS, *OTHERS], "o/n") == hat | licences


def test_what_was_merged_into_a_base_stays_known_when_it_is_quantized(golden: Path, tmp_path: Path) -> None:
    base, hat = golden / "hf-tiny-qlora/base", golden / "hf-tiny-qlora/adapter-end"
    merged = merge_folder(base, hat, tmp_path / "merged", "bf16").folder
    quantized = quantize_folder(merged, tmp_path / "quantized")
    assert (quantized / "lowrank.json").read_bytes() == (merged / "lowrank.json").read_bytes()
    assert lowrank.load(quantized).source["fingerprint"] == lowrank.load(merged).source["fingerprint"]
