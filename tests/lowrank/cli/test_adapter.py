"""`lowrank adapter`: hats made of hats on the command line, figures as JSON, and mistakes in one line."""

import json
import re
import shlex
from pathlib import Path

import pytest
from random_hat import make_hat

from lowrank.adapters.files import read_adapter
from lowrank.adapters.merge import merge_folder
from lowrank.cli import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def hats(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hats of the embedded base, and the base with one of them in its weights."""
    folder = tmp_path_factory.mktemp("hats")
    make_hat(embedded, folder / "runs/finance/hat", alpha=40)
    make_hat(embedded, folder / "runs/letters/hat", alpha=2)
    merge_folder(embedded, folder / "runs/finance/hat", folder / "tuned", "fp32", format="meta")
    return folder


def commands() -> list[list[str]]:
    text = (ROOT / "docs/hat-algebra.md").read_text(encoding="utf-8")
    return [shlex.split(line)[1:] for line in re.findall(r"^lowrank .*$", text, re.M)]


@pytest.mark.long
def test_every_command_of_the_page_runs(hats: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(hats)
    assert {command[1] for command in commands() if command[0] == "adapter"} == {"mix", "reduce", "extract", "mitigate"}
    for command in commands():
        assert main(command) == 0, capsys.readouterr().err
        assert "read back and compared" in capsys.readouterr().out


@pytest.mark.long
def test_the_python_of_the_page_runs(hats: Path, embedded: Path, monkeypatch) -> None:
    import lowrank
    from lowrank.adapters.files import load_adapter

    monkeypatch.chdir(hats)
    text = (ROOT / "docs/hat-algebra.md").read_text(encoding="utf-8")
    model = lowrank.load(embedded, weights="nf4-dq")
    load_adapter(model, "finance", "runs/finance/hat")
    load_adapter(model, "letters", "runs/letters/hat")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) == 3
    names = {"model": model}
    for block in blocks:
        exec(block, names)  # the page's own
    assert lowrank.load(embedded).source["fingerprint"] == model.source["fingerprint"]


@pytest.mark.parametrize("verb", ["mix", "reduce", "extract", "mitigate"])
def test_every_verb_has_an_example(verb: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["adapter", verb, "--help"])
    assert stop.value.code == 0 and f"example:\n  lowrank adapter {verb} " in capsys.readouterr().out


@pytest.mark.long
def test_figures_come_as_json(hats: Path, tmp_path: Path, capsys) -> None:
    hat = str(hats / "runs/finance/hat")
    assert main(["adapter", "mix", str(tmp_path / "mix"), f"{hat}=0.5", str(hats / "runs/letters/hat"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert read_adapter(tmp_path / "mix").record["made"]["weights"] == [0.5, 1.0]
    assert len(figures["linears"]) == len(read_adapter(hat).pairs) and 0 < figures["error"] < 1
    page = tmp_path / "page.html"
    words = ["adapter", "mitigate", hat, "embedded", str(tmp_path / "mild"), "--n", "10", "--json", "--html", str(page)]
    assert main(words) == 0
    figures = json.loads(capsys.readouterr().out)
    before, after = figures["forgetting"]["adapters"]
    assert after["name"] == "mitigated" and sum(figures["intruders"].values()) > 0
    assert after["recovered"]["difference"] == pytest.approx(after["kept"] - before["kept"])
    assert "Beside the hat that is" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("mix OUT HAT --method ties", "density must be given for"),
        ("mix OUT HAT --rank 0", "--rank must be at least 1, got 0"),
        ("reduce HAT OUT", "one of the arguments --rank --energy is required"),
        ("reduce HAT OUT --energy 2", "--energy must be above 0 and at most 1, got 2.0"),
        ("mitigate HAT embedded OUT --keep 2", "--keep must be from 0 to 1, got 2.0"),
        ("mitigate HAT OTHER OUT", "--kept must name documents that the base knows"),
        ("mitigate HAT embedded OUT --n 0 --html page.html", "--html is the page of the losses: give --n 1 or more"),
        ("extract embedded embedded OUT --rank 2", "there is nothing to extract"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(words: str, said: str, hats: Path, golden: Path, tmp_path: Path, capsys) -> None:
    places = {"OUT": tmp_path / "out", "HAT": hats / "runs/finance/hat", "OTHER": golden / "meta-tiny-mha"}
    try:
        status = main(["adapter", *(str(places.get(word, word)) for word in words.split())])
    except SystemExit as stop:
        status = stop.code
    *bars, error = capsys.readouterr().err.splitlines()
    assert status == 2 and said in error and all("extract:" in bar or not bar for bar in bars)
    assert not (tmp_path / "out").exists()
