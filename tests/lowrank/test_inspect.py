"""`lowrank.inspect`: each x-ray in Python has the figures, tables and page of the command line's."""

import json
import re
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from child_process import run_python
from random_hat import make_hat

import lowrank
from lowrank.cli import main
from lowrank.eval.inspect.functions import Page, Xray
from lowrank.kernels import ops
from lowrank.train.config import TrainConfig
from lowrank.train.from_config import train_from_config


@pytest.fixture(scope="module")
def hat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hats") / "hat"
    make_hat(Path("embedded"), folder)
    return folder


LINEAR = "layers.0.attention.wq"
UNITS = ("nats", "nats a token more than the base alone", "nats a token more than in full precision")
FORMATS = ("nf4 b64", "nf4 b1024", "mxfp4 b32", "int4 b64")
CALLS: dict[str, tuple[Any, list[str]]] = {
    "params": (
        lambda hat: lowrank.inspect.params("embedded", rank=4),
        ["params", "--model", "embedded", "--rank", "4"],
    ),
    "sizes": (lambda hat: lowrank.inspect.sizes("embedded"), ["sizes", "--model", "embedded"]),
    "base": (lambda hat: lowrank.inspect.base("embedded"), ["base", "embedded"]),
    "quant": (
        lambda hat: lowrank.inspect.quant("embedded", ["nf4"], layers=[0]),
        ["quant", "embedded", "--weights", "nf4", "--layers", "0"],
    ),
    "adapter": (lambda hat: lowrank.inspect.adapter(hat, "embedded"), ["adapter", "HAT", "embedded"]),
    "intruders": (
        lambda hat: lowrank.inspect.intruders(hat, "embedded", count=2),
        ["adapter", "HAT", "embedded", "--intruders", "2", "--weights", "nf4-dq"],
    ),
    "forgetting": (
        lambda hat: lowrank.inspect.forgetting("embedded", {str(hat): hat}, n=3),
        ["forgetting", "embedded", "HAT", "--n", "3"],
    ),
    "formats": (
        lambda hat: lowrank.inspect.formats("embedded", FORMATS, n=3),
        ["formats", "embedded", "--only", ",".join(FORMATS), "--n", "3"],
    ),
    "mixed": (
        lambda hat: lowrank.inspect.mixed("embedded", 5, n=2, measure=2),
        ["mixed", "embedded", "--bits", "5", "--n", "2", "--measure", "2"],
    ),
    "linear": (
        lambda hat: lowrank.inspect.linear("embedded", LINEAR, text="The cash", row=3, hat=hat),
        ["linear", "embedded", LINEAR, "--text", "The cash", "--row", "3", "--adapter", "HAT"],
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", CALLS)
def test_it_is_what_the_command_line_gives(
    name: str, hat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call, words = CALLS[name]
    xray = call(hat)
    page = tmp_path / "page.html"
    arguments = [str(hat) if word == "HAT" else word for word in words]
    assert main(["inspect", *arguments, "--json", "--html", str(page)]) == 0
    assert json.loads(json.dumps(xray.to_json())) == json.loads(capsys.readouterr().out)
    assert xray.plot().text == page.read_text(encoding="utf-8")
    assert xray.plot().save(tmp_path / "saved.html").read_bytes() == page.read_bytes()
    hashed = re.compile(r"[0-9a-f]{64}|sha256|^-+$")  # a hash is not cut
    lines = [line for line in xray.table(80).splitlines() if not hashed.search(line)]
    assert len(lines) > 4 and max(map(len, lines)) <= 80


OTHERS: dict[str, Any] = {
    "levels": lambda hat: lowrank.inspect.levels(),
    "summary": lambda hat: lowrank.inspect.summary(lowrank.load("embedded")),
    "data": lambda hat: lowrank.inspect.data(trained(hat.parent), n=2),
}


def trained(folder: Path) -> Path:
    """A run of one step over two documents that kept its checkpoint."""
    rows = [{"instruction": f"Name {what}.", "output": f"{what} is one."} for what in ("a colour", "a metal")]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tables = {
        "data": {"train": str(folder / "train.jsonl")},
        "run": {"epochs": 1, "batch": 2, "checkpoint_every": 1, "out": str(folder / "run")},
        "adapter": {"rank": 2, "targets": ["wq"]},
    }
    train_from_config(TrainConfig.from_dict(tables), progress=False)
    return folder / "run"


@pytest.mark.long
@pytest.mark.parametrize("name", lowrank.inspect.__all__)
def test_every_xray_has_a_table_json_and_a_page_of_named_axes(name: str, hat: Path) -> None:
    xray = (CALLS[name][0] if name in CALLS else OTHERS[name])(hat)
    assert isinstance(xray, Xray) and is_dataclass(xray.result)
    assert max(map(len, xray.table(80).splitlines())) <= 80 or name == "base"  # whose hashes are not cut
    assert json.loads(json.dumps(xray.to_json()))
    page = xray.plot().text
    first = re.search(r"</h1>\s*<p class=\"lead\">(.{20,})</p>", page)
    assert first and "nan" not in first[1], "the sentence that says what is seen"
    assert page.count("@software{lowrank,") == 1 and re.search(r"@(article|inproceedings)\{\w+\d{4}", page)
    drawings = [ElementTree.fromstring(drawing) for drawing in re.findall(r"<svg.*?</svg>", page, re.S)]
    assert drawings
    for drawing in drawings:
        assert drawing.findtext("title") and drawing.findtext("desc")
        words = [text.text or "" for text in drawing.iter("text")]
        names = [word for word in words if re.search("[A-Za-z]", word)]
        needed = {"plot": 2, "panel": 2, "heatmap": 2}[drawing.attrib["class"]]  # of x and y; of rows and axis
        assert len(names) >= needed, words
        if drawing.attrib["class"] == "panel":
            assert any(unit in words for unit in UNITS), words


@pytest.mark.slow
def test_levels_need_no_weights() -> None:
    xray = lowrank.inspect.levels()
    w = torch.randn(512, 1024, generator=torch.Generator().manual_seed(0))
    snr = lowrank.quantize(w).error(w).snr_db
    assert xray.result.levels["nf4"].error == pytest.approx(10 ** (-snr / 10), rel=0.01)
    assert "Lloyd-Max" in xray.table() and "<svg" in xray.plot().text
    assert "<iframe" in xray._repr_html_()


def test_a_summary_counts_what_is_stored_and_what_is_trained() -> None:
    model = lowrank.load("embedded", "nf4-dq")
    lowrank.add_adapter(model, "finance", rank=4)
    total = lowrank.inspect.summary(model).result.total
    parts = {part.what: part for part in lowrank.inspect.summary(model).result.parts}
    hat = parts["hat finance, fp32"]
    assert hat.trained == hat.parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert total.trained == hat.trained and hat.bytes == 4 * hat.parameters
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("quant_state")}
    assert total.bytes == sum(tensor.nbytes for tensor in state.values())
    dense = lowrank.load("embedded", "fp32")
    assert total.parameters - hat.parameters == sum(parameter.numel() for parameter in dense.parameters())
    assert "the model" in lowrank.inspect.summary(model).table()


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: lowrank.inspect.params("nope"), "model must be one of 7b, 13b"),
        (lambda: lowrank.inspect.params(0), "d must be at least 1, got 0"),
        (lambda: lowrank.inspect.params(rank=2.5), "rank must be an integer, got 2.5"),
        (lambda: lowrank.inspect.levels(0), "blocksize must be at least 1, got 0"),
        (lambda: lowrank.inspect.levels("a"), "blocksize must be an integer, got 'a'"),
        (lambda: lowrank.inspect.summary("embedded"), "model must be one in memory"),
        (lambda: lowrank.inspect.formats("embedded", "nf3"), "only must name formats of nf4 b32"),
        (lambda: lowrank.inspect.formats("embedded", n=1.5), "n must be an integer, got 1.5"),
        (lambda: lowrank.inspect.mixed("embedded", 5, n=1, measure=-1), "measure must be at least 0, got -1"),
        (lambda: lowrank.inspect.params(rank=0), "rank must be at least 1, got 0"),
        (lambda: lowrank.inspect.params(dtype="int8"), "dtype must be one of fp32, bf16, fp16"),
        (lambda: lowrank.inspect.sizes(weights=["x"]), "weights must be of fp32"),
        (lambda: lowrank.inspect.sizes(within=1.0), "within must lie between 0 and 1"),
    ],
)
def test_a_mistake_is_told_in_the_names_of_python(call: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        call()


def test_the_door_is_light() -> None:
    code = "import sys, lowrank; print(*dir(lowrank.inspect)); print('torch' in sys.modules)"
    names, has_torch = run_python("-c", code).stdout.splitlines()
    assert names.split() == sorted(["data", "levels", "summary", *CALLS])
    assert has_torch == "False"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lowrank.inspect.nothing  # noqa: B018


@pytest.mark.parametrize("format", ["nf4", "nf4-dq", "fp4", "int8"])
def test_a_quantized_weight_shows_its_codes_levels_and_maxima(format: str) -> None:
    w = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    q = lowrank.quantize(w, format)
    codes, levels, absmax = q.unpacked_codes(), q.codebook, q.absmax_float()
    assert codes.shape == w.shape
    if format == "int8":
        again = codes / 127 * absmax[:, None]
        assert torch.equal(levels[codes.long() + 127], codes / 127)
    else:
        again = levels[codes.long()] * absmax.repeat_interleave(64)[: w.numel()].view(w.shape)
    torch.testing.assert_close(again, q.dequantize(), rtol=2**-23, atol=0)
    counts = q.code_counts()
    assert counts.sum() == w.numel() and q.entropy_bits() == pytest.approx(
        float(torch.special.entr(counts / counts.sum()).sum() / torch.log(torch.tensor(2.0)))
    )
    error = q.error(w)
    lost = (w.double() - q.dequantize().double()).square()
    assert error.mse == pytest.approx(float(lost.mean()))
    assert error.snr_db == pytest.approx(float(10 * torch.log10(w.double().square().sum() / lost.sum())))
    assert error.largest == pytest.approx(float(lost.max().sqrt()))
    assert q.error(q.dequantize()).snr_db is None


def test_what_is_no_weight_of_that_shape_is_refused_in_words() -> None:
    q = lowrank.quantize(torch.ones(2, 64))
    for wrong, kind in ((torch.ones(2, 64).numpy(), "numpy.ndarray"), ([[1.0]], "builtins.list"), (3, "builtins.int")):
        for call in (lowrank.quantize, q.error, q):
            with pytest.raises(ValueError, match=rf"must be a tensor \(see torch.as_tensor\), got {kind}"):
                call(wrong)
    integers = torch.ones(2, 64, dtype=torch.int64)
    for call in (lowrank.quantize, q.error, q):
        with pytest.raises(ValueError, match="must be of a floating dtype"):
            call(integers)
    with pytest.raises(ValueError, match=r"one of `quantize`, got torch\.Tensor"):
        ops.linear(torch.ones(1, 64), torch.ones(2, 64))
    with pytest.raises(ValueError, match=r"one of `quantize`, got builtins\.list"):
        ops.dequantize([1.0])
    with pytest.raises(ValueError, match=r"w must be \(2, 64\), the shape of the weight, got \(64, 2\)"):
        q.error(torch.ones(64, 2))


def test_what_a_model_and_a_tokenizer_do_not_take_is_told_in_words() -> None:
    model, tokenizer = lowrank.load("embedded", "nf4-dq"), lowrank.load_tokenizer("embedded")
    assert tokenizer.encode("The balance") and tokenizer.decode(torch.tensor(tokenizer.encode("a b"))) == "a b"
    for wrong in ([[1, 2]], torch.ones(1, 2, dtype=torch.int64).numpy()):
        with pytest.raises(ValueError, match=r"tokens must be a tensor \[B, T\] \(see torch.as_tensor\)"):
            model(wrong)
    for odd in (torch.ones(1, 2), torch.ones(2, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"tokens must be int64 \[B, T\], got torch\."):
            model(odd)
    for text in (3, ["a text"], None):
        with pytest.raises(ValueError, match="a text must be a str, one at a time"):
            tokenizer.encode(text)
    for prompts, said in ((3, "prompts must be a text, or several"), ([3], "or the ids of one"), ([[0.5]], "the ids")):
        with pytest.raises(ValueError, match=said):
            lowrank.generate(model, tokenizer, prompts, max_new_tokens=1)
    given = torch.tensor(tokenizer.encode("The cash", bos=True))
    for ids in (given, given.numpy(), given.tolist()):
        (text,) = lowrank.generate(model, tokenizer, [ids], max_new_tokens=2)
        assert text == lowrank.generate(model, tokenizer, "The cash", max_new_tokens=2)[0]


def test_results_are_typed() -> None:
    assert isinstance(lowrank.inspect.params(), Xray) and isinstance(lowrank.inspect.params().plot(), Page)
