"""The compute type of verbs that write texts: the faster one of the processor, told, and kept with what was written."""

import json
from pathlib import Path

import pytest

from lowrank.cli import main
from lowrank.cli.arguments import writing_dtype
from lowrank.kernels.cpu import library

PROMPT = ("generate", "embedded", "--prompt", "The balance", "--max-new-tokens", "2")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("amx", "bf16"), ("avx512bf16", "bf16"), ("avx512", "fp32"), ("avx2", "fp32"), ("portable", "fp32")],
)
def test_bfloat16_is_the_default_where_the_instruction_set_multiplies_it(
    name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "unavailable_reason", lambda: "")
    monkeypatch.setattr(library, "instruction_set", lambda: name)
    dtype, why = writing_dtype(None, "cpu")
    assert dtype == expected and name in why
    assert writing_dtype("fp16", "cpu") == ("fp16", "") and writing_dtype(None, "cuda:1") == ("bf16", "a GPU")


def test_without_the_library_it_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "unavailable_reason", lambda: "no compiler")
    assert writing_dtype(None, "cpu") == ("fp32", "no C library")


@pytest.mark.parametrize(("fast", "dtype"), [(True, "bf16"), (False, "fp32")])
def test_the_first_line_says_what_is_computed_in(
    fast: bool, dtype: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(library, "unavailable_reason", lambda: "")
    monkeypatch.setattr(library, "has_bfloat16_products", lambda: fast)
    assert main([*PROMPT, "--json", "--head", "int8"]) == 0
    out, err = capsys.readouterr()
    assert err.splitlines()[0].startswith(f"embedded: nf4-dq, head int8, computing in {dtype} (")
    assert err.splitlines()[0].endswith("; see --dtype)")
    assert json.loads(out)[0]["dtype"] == dtype


def test_a_type_that_was_asked_for_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PROMPT, "--dtype", "fp32"]) == 0
    assert "computing" not in capsys.readouterr().err


def test_documents_keep_their_type(tmp_path: Path) -> None:
    pytest.importorskip("markdown_it")
    table = tmp_path / "facts.csv"
    table.write_text(
        "company,period,revenue,prior revenue,gross margin,net income,earnings per share,main driver\n"
        "Aldane Ltd,Q3 2024,$85.5 million,$81.0 million,15.5%,$6.1 million,$0.62,price rises\n"
    )
    words = ["--facts", str(table), "--kind", "earnings_summary", "--max-new-tokens", "3"]
    words += ["--out", str(tmp_path / "out")]
    assert main(["generate", "embedded", *words, "--dtype", "bf16"]) == 0
    (audit,) = (tmp_path / "out").glob("**/*.audit.json")
    assert json.loads(audit.read_text())["dtype"] == "bf16"
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["job"]["dtype"] == "bf16"
