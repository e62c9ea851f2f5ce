"""`lowrank inspect`: what each x-ray prints, the pages it writes, and what one line says when something is wrong."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from lowrank.adapters import adapter_parameters, add_adapter
from lowrank.adapters.files import save_adapter
from lowrank.checkpoints.load import load
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.cli import main

LINEAR = ("layers.0.attention.wq", "--text", "The balance sheet")


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str]):
    """Runs `lowrank inspect ...`: (status, standard output, standard error)."""

    def run(*arguments):
        try:
            status = main(["inspect", *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def hats(embedded: Path, tmp_path_factory: pytest.TempPathFactory):
    """Two hats for the embedded base, and one for another."""
    folder = tmp_path_factory.mktemp("hats")
    for seed in (0, 1):
        model = load(embedded)
        add_adapter(model, "hat", rank=4, targets=["wq", "wv"], seed=seed)
        for name, parameter in adapter_parameters(model, "hat").items():
            if name.endswith("lora_B"):
                torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(seed))
        save_adapter(model, "hat", folder / str(seed))
    return folder


@pytest.fixture(scope="module")
def quantized(embedded: Path, tmp_path_factory: pytest.TempPathFactory):
    return quantize_folder(embedded, tmp_path_factory.mktemp("q") / "q")


@pytest.mark.parametrize("verb", ["adapter", "data", "quant", "base", "linear", "params", "sizes"])
def test_every_verb_has_an_example(inspect, verb) -> None:
    status, out, _ = inspect(verb, "--help")
    assert status == 0 and f"example:\n  lowrank inspect {verb} " in out


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (("adapter", "HAT"), "rank 4 on 12 linears"),
        (("adapter", "HAT", "embedded", "--intruders", "3", "--other", "OTHER"), "along it"),
        (("quant", "embedded", "--layers", "0", "--weights", "nf4,nf4-dq"), "Lloyd-Max"),
        (("base", "embedded"), "Fingerprint"),
        (("linear", "embedded", *LINEAR, "--row", "5", "--adapter", "HAT"), "bit for bit what the forward pass has"),
        (("params", "--model", "13b", "--rank", "16", "--targets", "wq,wv", "--type", "bf16"), "a file of 26,236,024"),
        (("sizes", "--adapter-bytes", "80MB"), "80,013,120"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_table_json_and_page(inspect, hats, tmp_path: Path, arguments, printed) -> None:
    names = {"HAT": hats / "0", "OTHER": hats / "1"}
    arguments = [names.get(argument, argument) for argument in arguments]
    status, out, _ = inspect(*arguments, "--html", tmp_path / "page.html")
    assert status == 0 and printed in out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<svg" in page and "nan" not in page and page.endswith("</html>\n")
    status, out, err = inspect(*arguments, "--json")
    assert status == 0 and json.loads(out) and err == ""


@pytest.mark.slow
def test_every_command_of_the_docs_runs(inspect, hats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs/inspect.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("    lowrank inspect ")]
    commands = [shlex.split(re.split(r"\s{2,}", line.strip())[0])[2:] for line in lines]  # what follows is said of it
    commands = [command for command in commands if command[0] != "data" and not {"DIR", "BASE"} & set(command)]
    assert {command[0] for command in commands} == {
        *("adapter", "forgetting", "quant", "base", "linear", "params", "sizes")
    }
    monkeypatch.chdir(tmp_path)
    for command in commands:
        status, out, _ = inspect(*(hats / "0" if part == "runs/quickstart/hat" else part for part in command))
        assert status == 0 and out


def test_the_bar_shows_progress(inspect, hats) -> None:
    assert "inspect:" in inspect("adapter", hats / "0", "embedded")[2]


def test_a_quantized_base_is_told(inspect, hats, quantized) -> None:
    status, out, err = inspect("adapter", hats / "0", quantized)
    assert status == 0 and "/ |W|" in out and "/ |W - Q(W)|" not in out
    assert "is stored as nf4-dq: W is what that says it is, and its error is not known" in err


@pytest.mark.slow
def test_params_and_sizes_from_a_config_alone(inspect, tmp_path: Path, golden: Path, embedded: Path) -> None:
    expected = json.loads(inspect("params", "--json")[1])
    llama = {"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-05, "vocab_size": 32000}
    (tmp_path / "params.json").write_text(json.dumps(llama))
    for model in (tmp_path, tmp_path / "params.json"):
        assert json.loads(inspect("params", "--json", "--model", model)[1]) == expected
    (tmp_path / "params.json").write_text(json.dumps({**llama, "vocab_size": -1}))
    status, _, err = inspect("sizes", "--model", tmp_path / "params.json")
    assert (
        status == 2
        and "vocab_size is -1, and neither weights nor a tokenizer (tokenizer.model or tokenizer.json) say what it is"
        in err
    )
    (tmp_path / "tokenizer.model").write_bytes((embedded / "tokenizer.model").read_bytes())
    assert json.loads(inspect("params", "--json", "--model", tmp_path)[1])["of"] == expected["of"] - 2 * 29952 * 4096
    hf = golden / "hf-tiny-qlora/base"
    (tmp_path / "config.json").write_bytes((hf / "config.json").read_bytes())
    ours, theirs = (inspect("params", "--json", "--model", model)[1] for model in (tmp_path / "config.json", hf))
    assert ours == theirs


def test_sizes_the_other_way_round(inspect) -> None:
    one = ("sizes", "--json", "--adapter-bytes", "60MB", "--type", "fp16", "--targets", "wq,wv")
    assert json.loads(inspect(*one)[1])["adapters"]["60000000"] == []
    (found,) = json.loads(inspect(*one, "--any-rank")[1])["adapters"]["60000000"]
    assert (found["rank"], found["targets"], found["dtype"]) == (57, "wq, wv", "fp16")
    (found,) = json.loads(inspect(*one, "--rank", "57")[1])["adapters"]["60000000"]
    assert found["bytes"] == 57 * 32 * 2 * 8192 * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("adapter", "nowhere"), "nowhere: no such folder"),
        (("adapter", "HAT", "nowhere"), "nowhere: no such folder"),
        (("adapter", "HAT", "GOLDEN"), r"made for the base [0-9a-f]{16}, this base is"),
        (("adapter", "HAT", "--intruders"), "need the base"),
        (("adapter", "HAT", "embedded", "--exact"), "--exact is of --intruders"),
        (("adapter", "HAT", "QUANTIZED", "--weights", "nf4"), "is stored as nf4-dq, so the error of nf4 is not known"),
        (("quant", "QUANTIZED"), "is stored quantized: .* name the full-precision base"),
        (("quant", "embedded", "--layers", "9"), "layers must be of 0 to 5, got 9"),
        (("quant", "embedded", "--layers", "one"), "--layers must be numbers by commas, got 'one'"),
        (("quant", "embedded", "--weights", "nf5"), "got 'nf5'"),
        (("base", "nowhere"), "nowhere: no such folder"),
        (("linear", "embedded", "layers.9.attention.wq", "--text", "x"), "unknown linear 'layers.9.attention.wq'"),
        (("linear", "embedded", *LINEAR, "--row", "192"), "--row must be of 0 to 191, got 192"),
        (("linear", "embedded", *LINEAR, "--block", "3"), "--block must be of 0 to 2, got 3"),
        (("linear", "embedded", *LINEAR, "--token", "9"), "--token must be of 0 to 3"),
        (("linear", "GOLDEN", *LINEAR), "has no tokenizer: neither tokenizer.model nor tokenizer.json"),
        (("linear", "QUANTIZED", *LINEAR, "--weights", "fp4"), "stored as nf4-dq: weights must be 'nf4-dq'"),
        (("sizes", "--rank", "8", "--any-rank"), "--rank and --any-rank exclude each other"),
        (("sizes", "--weights", "nf5"), "--weights must be of .*got 'nf5'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_told_in_one_line(inspect, hats, quantized, golden: Path, arguments, message) -> None:
    names = {"HAT": hats / "0", "QUANTIZED": quantized, "GOLDEN": golden / "meta-tiny-mha"}
    status, _, err = inspect(*(names.get(argument, argument) for argument in arguments))
    lines = [line for line in err.splitlines() if line.startswith("lowrank")]
    assert status == 2 and len(lines) == 1 and "Traceback" not in err
    assert re.search(message, lines[0])
