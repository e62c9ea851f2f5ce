"""lowrank generate: grounded, compared, watched."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lowrank.adapters import adapter_parameters, add_adapter
from lowrank.adapters.files import save_adapter
from lowrank.checkpoints.load import load
from lowrank.cli import main
from lowrank.cli.generate.session import side_by_side

FACTS = "company: Aldane Foods Ltd\nperiod: Q3 2024\nrevenue: $12.5 million\nprior revenue: $10.0 million\n"


@pytest.fixture(scope="module")
def hats(embedded: Path, tmp_path_factory) -> list[str]:
    """Two hats that differ, as arguments."""
    import torch

    model, folder = load(embedded, "nf4-dq"), tmp_path_factory.mktemp("hats")
    arguments = []
    for seed, name in enumerate(("a", "b")):
        add_adapter(model, name, rank=2 + seed)
        for parameter in adapter_parameters(model, name).values():
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(seed))
        save_adapter(model, name, folder / name)
        arguments += ["--adapter", f"{name}={folder / name}"]
    return arguments


@pytest.fixture
def facts(tmp_path: Path) -> list[str]:
    (tmp_path / "facts.txt").write_text(FACTS)
    return ["--facts", str(tmp_path / "facts.txt"), "--kind", "earnings_summary", "--max-new-tokens", "40"]


@pytest.fixture
def generate(capsys, embedded: Path):
    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["generate", "embedded", "--dtype", "fp32", *arguments])
        out, err = capsys.readouterr()
        told = [line for line in err.splitlines() if line.startswith("lowrank")]
        return status, out, "\n".join(told)

    return run


@pytest.mark.slow
def test_each_hat_of_a_comparison_writes_what_it_writes_alone(generate, hats, facts) -> None:
    status, out, _ = generate(*hats, *facts, "--compare", "a,a=0.5+b=0.5,none", "--json")
    assert status == 0
    rows = json.loads(out)
    assert [row["use"] for row in rows] == ["a", "a=0.5+b=0.5", "none"]
    alone = [generate(*hats, *facts, "--use", use)[1] for use in ("a", "a=0.5,b=0.5", "none")]
    assert [row["text"] + "\n" for row in rows] == alone
    assert len(set(alone)) == 3


def test_json_has_the_probabilities_of_the_tokens_if_they_are_asked_for(generate, facts) -> None:
    (row,) = json.loads(
        generate("--prompt", "The balance sheet", "--max-new-tokens", "5", "--json", "--logprobs", "2")[1]
    )
    assert len(row["logprobs"]) == 5
    for token in row["logprobs"]:
        first, second = token["top"]
        assert first == [token["id"], token["piece"], token["logprob"]] and second[2] <= first[2] < 0
    assert "".join(token["piece"] for token in row["logprobs"]).replace("\u2581", " ") == row["text"]
    (plain,) = json.loads(generate("--prompt", "The balance sheet", "--max-new-tokens", "5", "--json")[1])
    assert "logprobs" not in plain and plain["text"] == row["text"]


@pytest.mark.slow
@pytest.mark.parametrize("temperature", ["0", "1.5"])
def test_a_grounded_document_has_right_figures_only_and_a_page_that_links_them(
    temperature: str, generate, facts, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    sampled = ("--temperature", temperature, "--seed", "5", "--max-new-tokens", "90", "--html", str(page))
    status, out, _ = generate(*facts, *sampled, "--grounded", "--json")
    (row,) = json.loads(out)
    assert status == 0
    assert row["figures"]
    assert all(figure["fact"] in ("revenue", "prior_revenue", "change") for figure in row["figures"])
    assert row["precision"] == 1.0
    shown = page.read_text(encoding="utf-8")
    links = re.findall(r'<mark class="right[^>]*>[^<]*<a href="#(e1-\d+)"', shown)
    assert len(links) == len(row["figures"])
    assert all(f'id="{link}"' in shown for link in links)
    assert "not in the record" not in shown


def test_what_follows_by_a_declared_rule_may_be_written(generate, facts) -> None:
    derived = json.loads(generate(*facts, "--grounded", "--derive", "difference(revenue, prior_revenue)", "--json")[1])
    assert derived[0]["precision"] in (0.0, 1.0)
    status, _, told = generate(*facts, "--grounded", "--derive", "ratio(revenue, profit)")
    assert status == 2
    assert "'profit' is no figure of the record; there are revenue, prior_revenue, change" in told


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--prompt", "x", "--grounded"], "--grounded is of --facts"),
        (["--prompt", "x", "--html", "x.html"], "--html is of --facts"),
        (["--prompt", "x", "--logprobs", "2"], "--logprobs is of --json, without --out"),
        (["--prompt", "x", "--json", "--logprobs", "21"], "--logprobs must be 0 to 20, got 21"),
        (["--prompt", "x", "--derive", "sum"], "--derive is of --facts"),
        (["--prompt", "x", "--compare", "a"], "--compare must name two hats or more"),
        (["--prompt", "x", "--compare", "a,b", "--use", "a"], "leave out --use"),
        (["--prompt", "x", "--compare", "nobody,none"], "unknown adapter 'nobody'"),
        (["--prompt", "x", "--compare", "a=z,none"], "a mix is NAME=WEIGHT"),
        (["--prompt", "x", "--min-p", "2"], r"--min-p must be in \[0, 1\]"),
        (["--prompt", "x", "--top-k", "-1"], "--top-k must be 0 or more"),
        (["--prompt", "x", "--repetition-penalty", "0"], "--repetition-penalty must be above 0"),
        (["--prompt", "x", "--stop", ""], "stop: a text that ends a row"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments: list[str], reason: str, generate) -> None:
    status, _, told = generate(*arguments)
    assert status == 2
    assert re.search(reason, told), told
    assert len(told.splitlines()) == 1


def test_a_stop_string_ends_the_text(generate) -> None:
    whole = generate("--prompt", "Revenue", "--max-new-tokens", "30")[1]
    stop = whole[10:14]
    assert (
        generate("--prompt", "Revenue", "--max-new-tokens", "30", "--stop", stop)[1]
        == whole[: whole.index(stop)] + "\n"
    )


def test_a_text_that_fills_the_context_says_so(generate, monkeypatch) -> None:
    def short(*arguments, **options):
        model = load(*arguments, **options)
        model.config = replace(model.config, max_seq_len=40)
        return model

    monkeypatch.setattr("lowrank.checkpoints.load.load", short)
    status, _, told = generate("--prompt", "Revenue", "--max-new-tokens", "100")
    assert (status, told) == (0, "lowrank: note: stopped: the context is full (40 positions)")


@pytest.mark.slow
def test_one_sitting(generate, hats, facts, tmp_path: Path, monkeypatch) -> None:
    texts = {
        use: generate(*hats, "--prompt", "Revenue", "--max-new-tokens", "12", "--use", use)[1] for use in ("a", "none")
    }
    folder = hats[1].partition("=")[2]
    lines = [
        "/set max_new_tokens 12", "Revenue", "/use a", "Revenue", "/use nobody", "/compare a,none", "Revenue",
        f"/load c={folder}", "/use c", "Revenue", "/hats", "/drop c", "/use c", "/write",
        f"/facts {facts[1]} earnings_summary", "/grounded on", "/set temperature 1.5", "/write", "/set temperature hot",
        "/set top_q 1", "/sing", "/help", "/quit", "never",
    ]  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    status, out, _ = generate(*hats, "--watch")
    assert status == 0
    assert out.count(texts["none"]) >= 1
    assert out.count(texts["a"]) >= 2  # worn by one name, and by another
    told = [line for line in out.splitlines() if line.startswith("mistake: ")]
    assert [re.sub(r"^mistake: ", "", line)[:24] for line in told] == [
        "unknown adapter 'nobody'", "unknown adapter 'c': thi", "there is nothing to writ",
        "temperature must be a nu", "/set: 'top_q' is none of", "/sing: no such command (",
    ]  # fmt: skip
    assert "worn: c" in out
    assert "never" not in out


def test_texts_stand_side_by_side_where_there_is_room() -> None:
    assert side_by_side(["a", "none"], ["one two\n\nthree", "four"], width=63).splitlines() == [
        f"a{' ' * 29} | none",
        f"{'-' * 30} | {'-' * 30}",
        f"one two{' ' * 23} | four",
        f"{' ' * 30} |",
        f"three{' ' * 25} |",
    ]
    assert side_by_side(["a", "none"], ["one", "two"], width=40) == "--- a\none\n\n--- none\ntwo"


@pytest.mark.slow
def test_the_facts_that_were_read_and_the_figures_of_the_text_are_told(generate, facts, tmp_path: Path, capsys) -> None:
    (tmp_path / "facts.txt").write_text(FACTS + "no colon\nrevenue: $13 million\nfee: about €5 million\n")
    page = tmp_path / "page.html"
    assert main(["generate", "embedded", "--dtype", "fp32", *facts, "--grounded", "--html", str(page)]) == 0
    err = capsys.readouterr().err.splitlines()
    name = tmp_path / "facts.txt"
    assert f"{name}: 6 facts, 3 figures; line 5 not read; 1 amount is not understood; 1 contradiction" in err
    assert f"{name}: line 6: 'revenue' is '$13 million', in line 3 '$12.5 million'" in err
    ending = next(line for line in err if "under their own name" in line or line.startswith("no figure"))
    assert ending.endswith("1 amount of the facts not understood")
    assert ending in page.read_text(encoding="utf-8")


def test_facts_of_several_companies_need_a_name(generate, tmp_path: Path) -> None:
    (tmp_path / "many.csv").write_text("company,period,revenue\nAldane,Q3 2024,€5 million\nBorrow,Q3 2024,$7 million\n")
    arguments = ("--facts", str(tmp_path / "many.csv"), "--kind", "earnings_summary", "--max-new-tokens", "2")
    assert generate(*arguments, "--record", "Borrow")[0] == 0
    status, _, told = generate(*arguments)
    assert status == 2
    assert told.endswith("many.csv: holds 2 records, name one of Aldane, Borrow")


@pytest.mark.slow
def test_a_base_and_a_hat_as_gguf_write_what_their_folders_write(capsys, embedded: Path, hats, facts, tmp_path) -> None:
    _, hat = hats[1].split("=", 1)
    for source, name, more in (("embedded", "base", ("--dtype", "fp32")), (hat, "hat", ("--base", "embedded"))):
        assert main(["export", source, str(tmp_path / f"{name}.gguf"), "--format", "gguf", *more]) == 0
    capsys.readouterr()
    written = []
    for base, adapter in (("embedded", hat), (tmp_path / "base.gguf", tmp_path / "hat.gguf")):
        assert (
            main(["generate", str(base), "--adapter", f"a={adapter}", *facts, "--weights", "nf4-dq", "--dtype", "fp32"])
            == 0
        )
        written.append(capsys.readouterr().out)
    assert written[0] == written[1] and written[0].strip()
