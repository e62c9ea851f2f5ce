"""The x-ray of a hat, held to the model that wears it: layouts, the error of 4 bit, a second hat, and refusals."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from lowrank.adapters import adapter_parameters, add_adapter, lora_layers
from lowrank.adapters.files import load_adapter, save_adapter
from lowrank.checkpoints.load import load
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.eval.inspect.adapter import IntruderSearch, inspect_adapter, to_json
from lowrank.eval.inspect.adapter_page import figures_table, findings, render
from lowrank.kernels.reference import weights as reference

BASES = ("meta-tiny-mha", "meta-tiny-gqa-mp2", "hf-tiny-qlora/base")


@pytest.fixture(scope="module")
def looked_at(embedded: Path, embedded_hat, random_hat):
    other = random_hat(embedded, seed=1, targets=["wq", "wk"])
    return inspect_adapter(embedded_hat, embedded, other=other, intruders=IntruderSearch(4, 0.5))


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_every_figure_is_that_of_the_layer_which_wears_the_hat(golden: Path, random_hat, base) -> None:
    folder = random_hat(golden / base)
    model = load(golden / base, "fp32")
    load_adapter(model, "hat", folder)
    layers = lora_layers(model)
    found = inspect_adapter(folder, golden / base, weights="nf4")
    assert [linear.path for linear in found.linears] == list(layers)
    for linear in found.linears:
        layer = layers[linear.path]
        w, delta = layer.base.weight.double(), layer.delta("hat").double()
        error = w - reference.dequantize(reference.quantize_4bit(w.float())).double()
        assert linear.shape == tuple(w.shape) and (linear.rank, linear.scaling) == (4, 2.0)
        assert linear.spectrum.norm == pytest.approx(float(delta.norm()), rel=1e-5)
        assert linear.spectrum.spectral == pytest.approx(float(torch.linalg.matrix_norm(delta, 2)), rel=1e-5)
        beside = linear.beside
        assert beside.weight_norm == pytest.approx(float(w.norm()), rel=1e-6)
        assert beside.to_weight == pytest.approx(float(delta.norm() / w.norm()), rel=1e-5)
        assert beside.to_error == pytest.approx(float(delta.norm() / error.norm()), rel=1e-5)
        cosine = float((delta * error).sum() / (delta.norm() * error.norm()))
        assert beside.along_error == pytest.approx(cosine, abs=1e-5)


def test_a_hat_that_is_the_error_of_quantization_is_along_it(golden: Path, random_hat, tmp_path: Path) -> None:
    """A full-rank hat that holds E itself: on a base in either layout its cosine with E is one."""
    from safetensors.torch import load_file, save_file

    from lowrank.adapters.files import tensor_key
    from lowrank.model.rope_layout import reorder_rope_rows

    for name in ("meta-tiny-mha", "hf-tiny-qlora/base"):
        base = golden / name
        model = load(base, "fp32")
        w = model.layers[0].attention.wq.weight
        folder = random_hat(base, rank=w.shape[1], alpha=w.shape[1], targets=["wq"])
        tensors = load_file(folder / "adapter_model.safetensors")
        error = w - reference.dequantize(reference.quantize_4bit(w))
        path = "layers.0.attention.wq"
        tensors[tensor_key(path, "lora_A")] = torch.eye(w.shape[1])
        rows = reorder_rope_rows(error, path, model.config, model.config.rope_layout, "half")
        tensors[tensor_key(path, "lora_B")] = rows.contiguous()
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / "lowrank.json").unlink()
        beside = inspect_adapter(folder, base, weights="nf4").linears[0].beside
        assert beside.along_error == pytest.approx(1, abs=1e-4) and beside.to_error == pytest.approx(1, abs=1e-4)


def test_without_a_base_there_is_the_spectrum_and_nothing_else(embedded_hat) -> None:
    found = inspect_adapter(embedded_hat)
    assert len(found.linears) == 12 and found.parameters == 6 * (4 * (192 + 192) + 4 * (512 + 192))
    assert all(linear.beside is None and linear.intruders is None for linear in found.linears)
    assert all(len(linear.spectrum.singular_values) == 4 for linear in found.linears)


@pytest.mark.slow
def test_a_second_hat_is_compared_where_both_cover_a_linear(looked_at) -> None:
    covered = {linear.path: linear.angles is not None for linear in looked_at.linears}
    assert {path.rpartition(".")[2] for path, there in covered.items() if there} == {"wq"}
    assert all(len(linear.angles.out_degrees) == 4 for linear in looked_at.linears if linear.angles)


def test_a_hat_beside_itself_is_the_same_hat(embedded: Path, embedded_hat) -> None:
    for linear in inspect_adapter(embedded_hat, embedded, other=embedded_hat).linears:
        assert linear.angles.cosine == pytest.approx(1) and max(linear.angles.out_degrees) < 0.05


@pytest.mark.slow
def test_intruders_are_those_of_the_svd(embedded: Path, embedded_hat) -> None:
    ways = [inspect_adapter(embedded_hat, embedded, intruders=IntruderSearch(6, 0.6, exact)) for exact in (False, True)]
    for fast, exact in zip(*(way.linears for way in ways), strict=True):
        assert fast.intruders.found <= exact.intruders.found <= fast.intruders.found + fast.intruders.undecided
    assert sum(linear.intruders.found for linear in ways[1].linears) > 0


def test_a_base_that_is_stored_quantized_gives_its_norm_and_no_error(
    embedded: Path, embedded_hat, tmp_path: Path
) -> None:
    quantized = quantize_folder(embedded, tmp_path / "q")
    found = inspect_adapter(embedded_hat, quantized)
    assert found.stored_as == "nf4-dq" and found.weights is None
    beside = found.linears[0].beside
    assert beside.weight_norm > 0 and (beside.error_norm, beside.to_error, beside.along_error) == (None, None, None)
    with pytest.raises(ValueError, match="is stored as nf4-dq, so the error of fp4 is not known"):
        inspect_adapter(embedded_hat, quantized, weights="fp4")


def test_mistakes_are_told(golden: Path, embedded: Path, embedded_hat, random_hat) -> None:
    mha = golden / "meta-tiny-mha"
    foreign = random_hat(mha)
    for message, call in {
        "made for the base": lambda: inspect_adapter(foreign, embedded),
        "need the base": lambda: inspect_adapter(embedded_hat, intruders=IntruderSearch()),
        "weights must be one of": lambda: inspect_adapter(embedded_hat, embedded, weights="nf5"),
        "with a threshold between 0 and 1": lambda: inspect_adapter(
            embedded_hat, embedded, intruders=IntruderSearch(3, 1.5)
        ),
        "the hats are of different bases": lambda: inspect_adapter(embedded_hat, other=foreign),
        "no linear in common": lambda: inspect_adapter(embedded_hat, other=random_hat(embedded, targets=["wv"])),
        "adapter_config.json is missing": lambda: inspect_adapter(embedded),
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            call()


class Tags(HTMLParser):
    """Which tags a page has, and whether each is closed."""

    def __init__(self, page):
        super().__init__()
        self.counts, self.open = {}, []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.slow
def test_the_page_shows_every_linear_and_fetches_nothing(looked_at) -> None:
    page = render(looked_at)
    tags = Tags(page)
    assert tags.open == [] and not {"script", "img", "link"} & tags.counts.keys()
    assert not re.search(r"(src|href)=|url\(|@import|https?://", page)
    assert tags.counts["svg"] == 7 + 2 + 4  # heat maps, spectra of wq and w2, the second hat
    for linear in looked_at.linears:
        assert f">{linear.path}<" in page
    assert render(looked_at) == page


def test_the_table_and_the_sentences_hold_what_there_is(looked_at, embedded_hat) -> None:
    head, rows = figures_table(looked_at)
    assert len(rows) == 12 and all(len(row) == len(head) for row in rows)
    assert {"/ |W|", "/ |W - Q(W)|", "along it", "intruders", "angles, degrees"} <= set(head)
    assert len(figures_table(inspect_adapter(embedded_hat))[0]) == 7
    assert "rank 4 on 12 linears" in " ".join(findings(looked_at))


def test_a_fresh_hat_says_that_it_does_nothing(embedded: Path, random_hat) -> None:
    folder = random_hat(embedded, std=0.0, targets=["wq"])
    found = inspect_adapter(folder, embedded)
    assert "It adds nothing yet" in " ".join(findings(found))
    assert "nan" not in render(found)


def test_json_has_everything(looked_at) -> None:
    figures = json.loads(json.dumps(to_json(looked_at), allow_nan=False))
    assert figures["linears"][0]["intruders"]["found"] == looked_at.linears[0].intruders.found
    assert len(figures["linears"][0]["spectrum"]["singular_values"]) == 4


def test_what_a_dora_adds_follows_from_its_base(golden: Path, tmp_path: Path) -> None:
    folder = golden / "meta-tiny-mha"
    model = load(folder, "fp32")
    add_adapter(model, "hat", rank=2, targets=["wq", "w2"], dora=True)
    for path, parameter in adapter_parameters(model, "hat").items():
        generator = torch.Generator().manual_seed(len(path))
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    save_adapter(model, "hat", tmp_path / "hat")
    xray = inspect_adapter(tmp_path / "hat", folder)
    layers = lora_layers(model)
    for linear in xray.linears:
        delta = layers[linear.path].delta("hat").detach().double()
        assert linear.spectrum.norm == pytest.approx(float(delta.norm()), rel=1e-5)
        assert linear.spectrum.spectral == pytest.approx(float(torch.linalg.matrix_norm(delta, 2)), rel=1e-5)
    assert xray.parameters == sum(p.numel() for p in adapter_parameters(model, "hat").values())
    with pytest.raises(ValueError, match="what a DoRA adds follows from W: name the base"):
        inspect_adapter(tmp_path / "hat")
