"""lowrank merge and lowrank export, and --force, from the command line."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from lowrank.adapters import adapter_parameters, add_adapter
from lowrank.adapters.files import save_adapter
from lowrank.adapters.merge import merge_folder
from lowrank.checkpoints.load import load
from lowrank.cli import main
from lowrank.model.param_names import LINEARS


@pytest.fixture
def lowrank(capsys: pytest.CaptureFixture[str]):
    """Runs a command in this process: (status, standard output, the last line of standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, (err.splitlines() or [""])[-1]

    return run


@pytest.fixture(scope="module")
def hat(tmp_path_factory: pytest.TempPathFactory, embedded: Path) -> Path:
    """A hat for the embedded base."""
    folder = tmp_path_factory.mktemp("hat") / "hat"
    model = load(embedded, "fp32")
    add_adapter(model, "hat", rank=2)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapter_parameters(model, "hat").values():
            parameter.normal_(std=0.02, generator=generator)
    save_adapter(model, "hat", folder)
    return folder


@pytest.mark.slow
def test_merge_prints_what_survives_and_what_it_does_to_loss_and_logits(
    lowrank, hat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a table that is wider than the terminal is continued below
    status, out, _ = lowrank("merge", "embedded", hat, tmp_path / "out", "--into", "nf4-dq", "--n", 1)
    assert status == 0
    assert "layer" in out and all(linear.partition(".")[2] in out for linear in LINEARS)
    layers = load(tmp_path / "out").config.n_layers
    cells = re.findall(r"^ *\d+((?:  0\.\d{4} \d\.\d{4}){7})$", out, re.MULTILINE)
    assert len(cells) == layers
    assert re.search(r"all of the hat: cosine 0\.\d{4}, norm ratio \d\.\d{4}", out)
    losses = re.search(
        r"loss over 1 documents, nats a token: (\S+) without the hat, (\S+) wearing it, (\S+) merged", out
    )
    assert losses and len({*losses.groups()}) == 3
    assert f"{tmp_path / 'out'}: nf4-dq, read back and compared tensor by tensor" in out


@pytest.mark.slow
def test_merge_gives_its_figures_as_json_and_full_precision_loses_nothing(lowrank, hat: Path, tmp_path: Path) -> None:
    options = ("--into", "fp32", "--format", "meta", "--n", 1, "--json")
    status, out, _ = lowrank("merge", "embedded", hat, tmp_path / "out", *options)
    figures = json.loads(out)
    assert status == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "params.json", "consolidated.00.pth", "tokenizer.model", "lowrank.json"
    }  # fmt: skip
    assert figures["overall"]["cosine"] == pytest.approx(1, abs=1e-6)
    assert len(figures["survival"]) == 7 * load(tmp_path / "out", "fp32").config.n_layers
    assert figures["drift"]["loss_merged"] == pytest.approx(figures["drift"]["loss_worn"], rel=1e-5)
    assert figures["drift"]["loss_worn"] != figures["drift"]["loss_base"]
    assert figures["drift"]["logits"]["same_choice"] == 1


@pytest.mark.slow
def test_merge_measures_on_documents_of_ones_own(lowrank, hat: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(json.dumps({"instruction": "Say it.", "input": "", "output": "It."}) + "\n")
    options = ("--into", "fp16", "--data", tmp_path / "mine.jsonl", "--json")
    _, out, _ = lowrank("merge", "embedded", hat, tmp_path / "out", *options)
    assert json.loads(out)["drift"]["documents"] == 1


def test_merge_without_documents_or_without_a_tokenizer_measures_no_loss(
    lowrank, hat, golden: Path, tmp_path: Path
) -> None:
    _, out, _ = lowrank("merge", "embedded", hat, tmp_path / "one", "--into", "fp16", "--n", 0, "--json")
    assert json.loads(out)["drift"] is None
    base, end = golden / "hf-tiny-qlora/base", golden / "hf-tiny-qlora/adapter-end"
    status, out, told = lowrank("merge", base, end, tmp_path / "two", "--into", "bf16", "--json")
    assert (status, json.loads(out)["drift"]) == (0, None)
    assert "has no tokenizer: logits and loss are not measured" in told


@pytest.mark.slow
def test_export_to_peft_and_gguf(lowrank, hat: Path, tmp_path: Path) -> None:
    status, out, _ = lowrank("export", hat, tmp_path / "peft", "--format", "peft", "--base-name", "my/base")
    assert status == 0 and "read back and compared" in out
    assert json.loads((tmp_path / "peft/adapter_config.json").read_text())["base_model_name_or_path"] == "my/base"
    for name, source, more in (("hat", hat, ("--base", "embedded")), ("base", "embedded", ("--dtype", "fp32"))):
        status, _, told = lowrank("export", source, tmp_path / f"{name}.gguf", "--format", "gguf", *more)
        assert status == 0, told
        assert (tmp_path / f"{name}.gguf").read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("merge", "embedded", "HAT", "OUT"), "--into"),
        (("merge", "embedded", "HAT", "OUT", "--into", "fp8"), "into must be one of fp32, bf16, fp16, dequantized"),
        (("merge", "embedded", "HAT", "OUT", "--into", "fp16", "--n", "-1"), "--n must be at least 0"),
        (("merge", "embedded", "nowhere", "OUT", "--into", "fp16"), "nowhere: no such folder"),
        (("merge", "nowhere", "HAT", "OUT", "--into", "fp16"), "nowhere: no such folder"),
        (("export", "HAT", "OUT"), "--format"),
        (("export", "HAT", "OUT", "--format", "gguf"), "--base must name the base of the hat"),
        (("export", "HAT", "OUT", "--format", "gguf", "--base", "embedded", "--dtype", "bf16"), "dtype must be one of"),
        (("export", "HAT", "OUT", "--format", "gguf", "--base-name", "x", "--base", "embedded"), "--base-name is of"),
        (("export", "HAT", "OUT", "--format", "peft", "--base", "embedded"), "it needs no base to be exported"),
        (("export", "embedded", "OUT", "--format", "peft"), "it holds a whole model, not a hat"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line(arguments, reason: str, lowrank, hat: Path, tmp_path: Path) -> None:
    places = {"HAT": hat, "OUT": tmp_path / "out"}
    status, _, told = lowrank(*(places.get(argument, argument) for argument in arguments))
    assert status == 2
    assert told.startswith("lowrank") and reason in told
    assert not list(tmp_path.iterdir())


def test_gguf_without_its_package_says_how_to_get_it(
    lowrank, hat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "gguf" or "gguf_" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gguf", None)
    status, _, told = lowrank("export", hat, tmp_path / "out", "--format", "gguf", "--base", "embedded")
    assert status == 2
    assert "--format gguf: gguf is missing: pip install gguf" in told


@pytest.mark.slow
def test_a_hat_of_another_base_is_refused_with_both_hashes_unless_it_is_insisted_on(
    lowrank, hat: Path, embedded: Path, tmp_path: Path
) -> None:
    """The embedded base with the hat merged into it is another base, of the same shape."""
    other = merge_folder(embedded, hat, tmp_path / "other", "fp16").folder
    theirs, ours = (load(folder).source["fingerprint"][:16] for folder in (embedded, other))
    use = ("--adapter", f"a={hat}")
    commands = [
        ("generate", other, *use, "--prompt", "x", "--max-new-tokens", 1),
        ("eval", other, *use, "--n", 1, "--weights", "fp32", "--out", tmp_path / "eval"),
        ("merge", other, hat, tmp_path / "twice", "--into", "fp16", "--n", 0),
        ("export", hat, tmp_path / "hat.gguf", "--format", "gguf", "--base", other),
    ]
    for command in commands:
        status, _, told = lowrank(*command)
        assert status == 2, command
        assert f"made for the base {theirs}, this base is {ours} (--force" in told, command
        assert lowrank(*command, "--force")[0] == 0, command


def test_a_hat_whose_matrices_were_changed_is_refused(lowrank, hat: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(hat, tmp_path / "hat"))
    content = bytearray((changed / "adapter_model.safetensors").read_bytes())
    content[-1] ^= 1
    (changed / "adapter_model.safetensors").write_bytes(content)
    status, _, told = lowrank("merge", "embedded", changed, tmp_path / "out", "--into", "fp16")
    assert status == 2
    assert re.search(r"has the SHA-256 [0-9a-f]{16}, but lowrank.json beside it is of [0-9a-f]{16}", told)
