"""Consoles that lack most characters, as Windows' in Western Europe and a bare C locale: no verb ends in one."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from child_process import environment
from random_hat import make_hat

from lowrank.cli import build_parser, main

FOREIGN = "Ünïted 中文 🏦 Ltd ≤ ▁"  # cp1252 has the first word alone
FACTS = (
    f"company: {FOREIGN}\nperiod: fiscal year 2023\nrevenue: $160 million\nprior_revenue: $100 million\nchange: 60%\n"
)
ENTRY = {"instruction": "Write.", "input": FACTS, "output": f"{FOREIGN} had revenue of $160 million."}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, embedded: Path) -> Iterator[Path]:
    """facts.txt, rows.jsonl and a hat, all with characters that the console has not."""
    folder = tmp_path_factory.mktemp("中文")
    (folder / "facts.txt").write_text(FACTS, encoding="utf-8")
    rows = "".join(json.dumps({**ENTRY, "id": f"▁{number}"}, ensure_ascii=False) + "\n" for number in range(3))
    (folder / "rows.jsonl").write_text(rows, encoding="utf-8")
    (folder / "bad.jsonl").write_text(rows + '{"instruction": "中文 🏦"}\n', encoding="utf-8")
    make_hat(embedded, folder / "hat")
    yield folder


GENERATE = "generate embedded --adapter 中={0}/hat --max-new-tokens 8"
VERBS = {
    "adapter": "adapter reduce {0}/hat ▁smaller --rank 1",
    "bench": "bench kernels --explain 1x384x384",
    "conformance": "conformance kit ▁kit",
    "data check": "data check {0}/bad.jsonl",
    "data documents": "data documents ▁documents --n 3",
    "data import": "data import {0}/rows.jsonl ▁imported.jsonl",
    "data kind": "data kind check {0}/facts.txt",
    "data show": "data show {0}/rows.jsonl --n 2",
    "doctor": "doctor",
    "eval": "eval embedded --adapter 中={0}/hat --weights fp32 --n 1 --out ▁grid",
    "export": "export {0}/hat ▁hat.gguf --format gguf --base embedded",
    "fetch": "fetch 中文 --to {0}/hat",
    "generate": GENERATE + " --use 中 --prompt 中文🏦",
    "generate --compare": GENERATE + " --compare 中,none --facts {0}/facts.txt --kind earnings_summary",
    "generate --json": GENERATE + " --json --logprobs 3 --facts {0}/facts.txt --kind earnings_summary",
    "generate --out": GENERATE + " --out ▁letters --facts {0}/facts.txt --kind earnings_summary",
    "inspect adapter": "inspect adapter {0}/hat embedded",
    "inspect base": "inspect base embedded",
    "inspect linear": "inspect linear embedded layers.0.attention.wq --text 中文🏦",
    "inspect params": "inspect params",
    "inspect quant": "inspect quant embedded --weights nf4 --layers 0",
    "inspect sizes": "inspect sizes",
    "merge": "merge embedded {0}/hat ▁merged --into nf4-dq --n 1",
    "parity": "parity embedded {0}/none.safetensors",
    "quantize": "quantize embedded ▁quantized",
    "quickstart": "quickstart --help",
    "reproduce": "reproduce --help",
    "serve": "serve embedded --adapter 中={0}/missing",
    "sweep": "sweep data.train={0}/rows.jsonl base.path=embedded adapter.rank=2,4 run.out=▁sweep --plan",
    "train": "train data.train={0}/rows.jsonl base.path=embedded run.out=▁run run.epochs=1",
    "train --plan": "train data.train={0}/rows.jsonl base.path=embedded run.out=▁other --plan",
}


def test_every_verb_is_among_them() -> None:
    (verbs,) = [action for action in build_parser()._actions if action.choices and "VERB" in str(action.metavar)]
    assert verbs.choices is not None and {words.split()[0] for words in VERBS.values()} == set(verbs.choices)


@pytest.mark.long
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("words", VERBS.values(), ids=VERBS)
def test_a_verb_ends_as_it_does_on_any_console(
    words: str, encoding: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It prints, or says in a line what is wrong: what it does not is raise UnicodeEncodeError."""
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding, write_through=True))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding, "backslashreplace", write_through=True))
    monkeypatch.chdir(tmp_path)
    try:
        status = main(words.format(folder).split(" "))
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        status = stop.code
    told = (out.getvalue() + err.getvalue()).decode(encoding)
    assert status in (0, 1, 2) and told, told
    assert "codec can't encode" not in told and "UnicodeEncodeError" not in told


@pytest.mark.slow
def test_what_a_console_lacks_is_shown_by_its_number(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lowrank", "data", "show", folder / "rows.jsonl", "--n", "1"],
        env=environment(PYTHONIOENCODING="cp1252"),
        capture_output=True,
        check=True,
        timeout=120,
    )
    shown = done.stdout.decode("cp1252")
    assert shown.startswith(r"\u25810: ")
