"""A hat out of two checkpoints: the hat that was merged comes back, whatever the layout; what is left out is told."""

import shutil
from pathlib import Path

import pytest
import torch
from random_hat import make_hat
from safetensors.torch import load_file, save_file

from lowrank.adapters import use_adapter
from lowrank.adapters.algebra.extract import extract_adapter, sketched
from lowrank.adapters.algebra.factored import factor_dense
from lowrank.adapters.files import load_adapter, read_adapter
from lowrank.adapters.merge import merge_folder
from lowrank.checkpoints.load import load

pytestmark = pytest.mark.filterwarnings("ignore:.*params.json has no place for:UserWarning")


@pytest.fixture
def base(hf_folder: Path) -> Path:
    return hf_folder / "base"


@pytest.mark.slow
@pytest.mark.parametrize("format", ["hf", "meta"])
@pytest.mark.parametrize("sketch", [False, True])
def test_the_hat_that_was_merged_comes_back(
    sketch: bool, format: str, base: Path, hf_reference, tmp_path: Path, assert_logits_equal
) -> None:
    worn = make_hat(base, tmp_path / "hat", targets=["wq", "wk", "w2"])
    merged = merge_folder(base, tmp_path / "hat", tmp_path / "tuned", "fp32", format=format).folder
    found = extract_adapter(base, merged, tmp_path / "out", rank=4, sketch=sketch)
    assert found.left_out == {} and found.adapter.error < 1e-5
    assert {linear.path for linear in found.adapter.linears} == set(read_adapter(tmp_path / "hat").pairs)
    model = load(base, "fp32")
    load_adapter(model, "out", tmp_path / "out")
    use_adapter(model, "out")
    assert_logits_equal(model(hf_reference["tokens"]), worn(hf_reference["tokens"]))


def test_a_base_in_metas_layout_has_its_hat_in_halves(golden: Path, tmp_path: Path) -> None:
    base = golden / "meta-tiny-mha"
    make_hat(base, tmp_path / "hat", targets=["wq"])
    merged = merge_folder(base, tmp_path / "hat", tmp_path / "tuned", "fp32").folder
    extract_adapter(base, merged, tmp_path / "out", rank=4)
    wanted, found = (read_adapter(tmp_path / name).pairs for name in ("hat", "out"))
    for path, pair in wanted.items():
        torch.testing.assert_close(
            found[path].delta(), pair.delta(), rtol=0, atol=1e-5 * float(pair.delta().abs().max())
        )


@pytest.fixture
def tuned(base: Path, tmp_path: Path) -> Path:
    """The base after training of every weight: each moved at random, a norm as well."""
    folder = Path(shutil.copytree(base, tmp_path / "tuned"))
    generator = torch.Generator().manual_seed(1)
    weights = load_file(folder / "model.safetensors")
    for key, value in weights.items():
        if "layers.0." in key:
            weights[key] = (value.float() + 0.01 * torch.randn(value.shape, generator=generator)).to(value.dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_the_error_is_that_of_the_best_product_and_of_the_matrices_as_written(
    base: Path, tuned: Path, tmp_path: Path
) -> None:
    found = extract_adapter(base, tuned, tmp_path / "out", rank=16)
    key = "model.layers.0.self_attn.q_proj.weight"
    before, after = (load_file(folder / "model.safetensors")[key].double() for folder in (base, tuned))
    linear = next(one for one in found.adapter.linears if one.path == "layers.0.attention.wq")
    assert linear.off == pytest.approx(float(torch.linalg.svdvals(after - before)[16:].norm()), rel=1e-5)
    assert linear.wanted == pytest.approx(float((after - before).norm()), rel=1e-6)
    assert set(found.left_out) == {"layers.0.attention_norm", "layers.0.ffn_norm"}
    assert not any(one.path.startswith("layers.1.") for one in found.adapter.linears)


def test_a_share_of_the_energy_is_kept(base: Path, tuned: Path, tmp_path: Path) -> None:
    found = extract_adapter(base, tuned, tmp_path / "out", energy=0.9)
    assert 0.25 < found.adapter.error <= 0.1**0.5 + 1e-6  # |off|^2 is at most a tenth of |wanted|^2


def test_a_sketch_of_a_slowly_falling_spectrum_is_nearly_the_best(base: Path) -> None:
    matrix = torch.randn(200, 120, generator=torch.Generator().manual_seed(2))
    best = float((matrix.double() - factor_dense(matrix).cut(10).dense()).norm())
    assert best <= float((matrix.double() - sketched(matrix, 10).dense()).norm()) <= 1.02 * best


def test_folders_of_other_shapes_and_equal_ones_are_refused(base: Path, golden: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has other shapes than"):
        extract_adapter(base, golden / "meta-tiny-gqa-mp2", tmp_path / "out", rank=4)
    with pytest.raises(ValueError, match="there is nothing to extract"):
        extract_adapter(base, base, tmp_path / "out", rank=4)
    with pytest.raises(ValueError, match="sketch needs a rank"):
        extract_adapter(base, base, tmp_path / "out", energy=0.5, sketch=True)
