"""lowrank generate: what prompts begin with is read once, in a folder's documents, in a sitting, and from a folder."""

import io
from pathlib import Path

import pytest

from lowrank.cli import main
from lowrank.kernels.cpu import library
from lowrank.layers.prefix_folder import END
from lowrank.model.llama import Llama

pytest.importorskip("markdown_it")

KINDS = Path(__file__).parents[3] / "lowrank" / "data" / "documents" / "kinds"
INSTRUCTION = (
    "Write {noun} in {style}. The reader is a member of the board who has two minutes. State the revenue first, then "
    "the change against the period before, then the margin and what moved it. Use whole sentences, name the company "
    "once in each part, and write no figure that is not in the facts. Do not praise, do not guess, repeat no figure."
)
HEAD = "company,period,revenue,prior revenue,gross margin,net income,earnings per share,driver"
ROWS = [
    f"{name},Q3 2024,${412 + number}.5 million,$384.3 million,41.2%,$38.9 million,$1.32,new stores"
    for number, name in enumerate(("Aldane Foods Ltd", "Bellmere plc", "Corvane AG"))
]


@pytest.fixture
def facts(tmp_path: Path) -> list[str]:
    """The words that name a table, and a kind whose instruction is longer than a task's beginning must be."""
    (tmp_path / "companies.csv").write_text("\n".join([HEAD, *ROWS]) + "\n", encoding="utf-8")
    kind = (KINDS / "earnings_summary.toml").read_text(encoding="utf-8").replace("earnings_summary", "board_summary")
    (tmp_path / "kind.toml").write_text(f'instruction = "{INSTRUCTION}"\n{kind}', encoding="utf-8")
    return ["--facts", str(tmp_path / "companies.csv"), "--kind", str(tmp_path / "kind.toml")]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of each part of a prompt that is read."""
    read: list[int] = []
    hidden = Llama.hidden

    def counted(self, tokens, *given):
        if tokens.shape[1] > 1:
            read.append(tokens.shape[1])
        return hidden(self, tokens, *given)

    monkeypatch.setattr(Llama, "hidden", counted)
    return read


def generate(*words: object, tokens: int = 30) -> int:
    return main(["generate", "embedded", "--dtype", "fp32", "--max-new-tokens", str(tokens), *map(str, words)])


def texts(folder: Path) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))]


@pytest.mark.slow
@pytest.mark.skipif(bool(library.unavailable_reason()), reason="without the library documents are read together")
@pytest.mark.parametrize("how", [("--grounded",), ("--temperature", "0.9", "--seed", "4")], ids=["grounded", "drawn"])
def test_an_instruction_is_read_once_and_no_text_depends_on_it(
    how: tuple[str, ...], facts: list[str], parts: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = ("--prefixes", tmp_path / "kept")
    ways = {"one": ("--batch", 1), "three": ("--batch", 3, *kept), "again": kept, "none": ("--prefix-limit", 1)}
    read = {}
    for name, words in ways.items():
        parts.clear()
        assert generate(*facts, "--out", tmp_path / name, *how, *words) == 0
        read[name] = sorted(parts, reverse=True)
    assert all(texts(tmp_path / name) == texts(tmp_path / "one") for name in ways)
    shared, *rests = read["one"]
    assert shared > 64 and len(rests) == 3 and read["three"] == read["one"]
    assert read["again"] == rests and read["none"] == [shared] * 3 + rests
    capsys.readouterr()
    alone = [*how[:-1], str(int(how[-1]) + 2)] if "--seed" in how else how
    assert generate(*facts, "--record", "3", *alone) == 0
    assert capsys.readouterr().out == texts(tmp_path / "one")[2]


@pytest.mark.slow
def test_a_sitting_reads_a_prompt_once_for_each_hat_and_a_folder_keeps_it(
    facts: list[str], parts: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    def sitting(*lines: str) -> list[str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
        assert generate(*facts, "--record", 1, "--watch", "--prefixes", tmp_path / "kept", tokens=8) == 0
        return capsys.readouterr().out.splitlines()

    first = sitting("/set seed 3", "/set temperature 0.9", "/write")
    assert len(parts) == 2 and parts[0] > 64
    parts.clear()
    assert sitting("/set seed 3", "/set temperature 0.9", "/write") == first and parts == []
    assert generate(*facts, "--record", 1, "--prefixes", tmp_path / "kept", "--json", tokens=8) == 0
    assert parts == []
    assert len(list((tmp_path / "kept").glob(f"*{END}"))) == 2


def test_a_short_instruction_is_read_with_its_facts(facts: list[str], parts: list[int]) -> None:
    assert generate(*facts[:2], "--kind", "earnings_summary", "--record", 1, tokens=2) == 0
    assert len(parts) == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--device", "cuda", "--prefixes", "kept"), "lowrank: --prefixes is of a CPU, got --device cuda"),
        (("--prefixes", __file__), f"lowrank: {__file__}: must be a folder, for keys and values of prompts"),
    ],
    ids=["a GPU", "a file"],
)
def test_what_cannot_keep_prompts_is_refused_before_any_work(
    words: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lowrank.checkpoints.load.load", lambda *_, **__: pytest.fail("the base was loaded"))
    assert generate("--prompt", "x", *words) == 2
    assert capsys.readouterr().err.splitlines() == [reason]
