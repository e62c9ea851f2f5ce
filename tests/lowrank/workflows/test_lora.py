"""LoRA beside full fine-tuning: statistics on runs whose answer is known, the verdicts, what goes on and is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from lowrank.bench.rows import read
from lowrank.cli import main
from lowrank.eval.metrics.bootstrap import Interval
from lowrank.eval.metrics.student import mean_interval
from lowrank.model.loss import IGNORED
from lowrank.workflows import lora_runs
from lowrank.workflows.lora import PLAN, SHORT, judged, known, to_json
from lowrank.workflows.lora_claims import AGREES, CANNOT_TELL, DOES_NOT, Judged, claims, decide
from lowrank.workflows.lora_page import (
    CLAIMS_HEAD,
    METHODS_HEAD,
    claim_rows,
    findings,
    markdown,
    markdown_table,
    method_rows,
    render,
)
from lowrank.workflows.lora_plan import ALL, ATTENTION, FEW, FULL, LARGE, MANY, MLP, Method, Part, Plan, geometric
from lowrank.workflows.lora_results import CannotTell, Results, learned_loss, lowest
from lowrank.workflows.lora_runs import batches, count_intruders, facts, run_all

GRID = geometric(1e-4, 10**0.5, 7)  # 1e-4 to 1e-1
METHODS = (FULL, *map(Method, (1, 4, 16, 64)), Method(22, ATTENTION), Method(16, MLP), Method(64, ALL, 128.0))
MADE = Plan(
    tuple(Part(name, 32, 8, 25, tuple((one, GRID) for one in METHODS)) for name in (MANY, FEW, LARGE)),
    digits=12,
    kept=1,
    typical=16,
)
FULL_BEST = 1e-3
ABOUT = {"runs": 1, "cpu_minutes": 1.0, "machine": "m", "versions": {"torch": "2"}, "date": "2026-11-30"}
Loss = Callable[[str, Method], float]


def made(ratio: float, jitter: float, floor: Loss = lambda part, method: 0.1, seeds: int = 3) -> Results:
    """Runs whose ln loss is a parabola over ln rate, so that the best rate of a method is known

    ratio   the best rate of LoRA over that of full fine-tuning
    jitter  the deviation over seeds of ln of the best rate
    floor   the loss at the best rate
    """
    rows = []
    for run in MADE.runs(seeds):
        best = math.log(FULL_BEST * (ratio if run.method.rank else 1))
        best += jitter * Random(f"{run.seed}|{run.method.name}").gauss(0, 1)
        loss = floor(run.part.name, run.method) * math.exp(0.2 * (math.log(run.rate) - best) ** 2)
        rows.append(
            {
                "part": run.part.name,
                "rank": run.method.rank,
                "targets": run.method.targets,
                "alpha": run.method.alpha,
                "rate": run.rate,
                "seed": run.seed,
                "parameters": 1000 * run.method.rank,
                "loss_before": 5.0,
                "kept_before": 0.1,
                "loss": loss,
                "bits": 1.0,
                "kept": 0.2 + run.rate,
                "intruders": run.method.rank and round(1000 * run.rate),
                "looked_at": 420,
                "curve": [loss] * run.part.steps,
                "cpu_seconds": 1.0,
            }
        )
    return Results(MADE, rows)


def verdicts(results: Results) -> dict[str, Judged]:
    return {one.claim.says: one for one in judged(MADE, results.rows).judged}


TEN = "the best rate of LoRA is 10 times that of full fine-tuning"


@pytest.mark.parametrize(
    ("x", "least"), [((-1.0, 0.2, 2.0), 0.3), ((0.0, 1.0, 2.0), 1.0), ((-3.0, -1.0, 0.0), -1.4)], ids=str
)
def test_the_lowest_point_of_a_parabola_is_found(x: tuple[float, ...], least: float) -> None:
    y = [3 * (one - least) ** 2 + 1 for one in x]
    assert lowest(x, y) == pytest.approx(least, abs=64 * 3 * np.finfo(float).eps)


def test_a_known_best_rate_is_found_for_each_seed() -> None:
    results = made(10, 0.0)
    # ln loss is a parabola: what is left is the rounding of the rates of the grid to four digits, and of floats.
    assert results.log_best_rates(MANY, FULL) == pytest.approx([math.log(FULL_BEST)] * 3, abs=1e-9)
    assert results.log_best_rates(MANY, Method(16)) == pytest.approx([math.log(10 * FULL_BEST)] * 3, abs=1e-9)


def test_a_known_ratio_is_judged_by_its_interval() -> None:
    found = verdicts(made(10, 0.05))[TEN]
    assert found.verdict == AGREES
    assert found.interval is not None and found.interval.low < 10 < found.interval.high
    assert verdicts(made(1, 0.05))[TEN].verdict == DOES_NOT
    assert verdicts(made(10, 1.0))[TEN].verdict == CANNOT_TELL
    one = verdicts(made(10, 0.05, seeds=1))[TEN]
    assert one.verdict == CANNOT_TELL and one.interval is not None and math.isnan(one.interval.low)


@pytest.mark.parametrize(
    ("interval", "bounds", "expected"),
    [
        ((1, 2), (0, 3), AGREES),
        ((1, 2), (0, math.inf), AGREES),
        ((-2, -1), (0, math.inf), DOES_NOT),
        ((0, 0), (0, math.inf), DOES_NOT),
        ((4, 5), (0, 3), DOES_NOT),
        ((-1, 2), (0, math.inf), CANNOT_TELL),
        ((-1, 5), (0, 3), CANNOT_TELL),
        ((math.nan, math.nan), (0, 3), CANNOT_TELL),
    ],
    ids=str,
)
def test_a_verdict_follows_from_an_interval_and_a_range(interval, bounds, expected: str) -> None:
    assert decide(Interval(math.nan, *interval), *bounds) == expected


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    generator, draws = np.random.default_rng(0), 4000
    intervals = [mean_interval(row.tolist()) for row in generator.standard_normal((draws, 3))]
    covered = sum(one.low <= 0 <= one.high for one in intervals) / draws
    # Four standard errors of a share of 0.95, and the three digits that t is known to.
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / draws) + 1e-3)
    by_hand = mean_interval([1.0, 2.0, 3.0])
    assert (by_hand.difference, by_hand.high - 2) == pytest.approx((2.0, 4.303 / math.sqrt(3)))


def test_a_best_rate_at_an_end_of_the_grid_is_none() -> None:
    results = made(100, 0.0)  # LoRA's is the last of the grid
    assert results.is_at_end(MANY, Method(16)) and not results.is_at_end(MANY, FULL)
    with pytest.raises(CannotTell, match=r"rank 16 on many, seed 0, is at an end of its grid, 0\.1$"):
        results.log_best_rates(MANY, Method(16))
    with pytest.raises(CannotTell, match=r"the best rate of rank 16 on many is at an end of its grid$"):
        results.at_best(MANY, Method(16), "loss")
    found = verdicts(results)
    assert found[TEN].verdict == CANNOT_TELL and "end of its grid" in found[TEN].why
    assert found["LoRA at low ranks underperforms full fine-tuning"].verdict == CANNOT_TELL


def test_of_rates_that_are_as_good_the_smallest_is_the_best_also_at_an_end() -> None:
    results = made(10, 0.0)
    for rate, loss in zip(GRID, (3.0, 0.3, 0.02, 0.003, 0.002, 0.001, 0.0005), strict=True):
        for seed in results.seeds:
            results.row(FEW, FULL, rate, seed)["loss"] = loss
    assert results.best_place(FEW, FULL) == 2 and not results.is_at_end(FEW, FULL), "no loss is lower than 0"
    assert results.at_best(FEW, FULL, "loss") == [0.02] * 3
    for seed in results.seeds:
        for rate in GRID[:-1]:
            results.row(FEW, FULL, rate, seed)["loss"] += 0.1
        results.row(FEW, FULL, GRID[-1], seed)["loss"] = 0.05
    assert results.is_at_end(FEW, FULL), "here one beyond could be"


def test_losses_are_compared_by_seed_and_against_the_margin() -> None:
    def floor(part: str, method: Method) -> float:
        return 0.1 if part == FEW or not method.rank else {1: 1.0, 4: 0.8, 64: 0.2}.get(method.rank, 0.6)

    found = verdicts(made(10, 0.05, floor))
    assert found["LoRA of a high rank learns as full fine-tuning does, on data below its capacity"].verdict == AGREES
    assert found["low ranks fall behind high ones where there is more to learn"].verdict == AGREES
    assert found["LoRA at low ranks underperforms full fine-tuning"].verdict == AGREES
    assert found["high ranks are required to close the gap with full fine-tuning"].verdict == AGREES
    same = found["LoRA on attention alone underperforms LoRA on MLPs alone, with as many parameters"]
    assert same.verdict != AGREES, "both have the same losses"
    assert found["full fine-tuning almost never has intruder dimensions"].verdict == AGREES
    assert found["LoRA has intruder dimensions, full fine-tuning has not"].verdict == AGREES
    assert found["the more intruder dimensions, the more is forgotten"].verdict == AGREES
    assert found["LoRA forgets less than full fine-tuning"].verdict == DOES_NOT, "more at a higher rate"
    fit = found["LoRA forgets less also where both fit the task equally well"]
    assert fit.verdict == DOES_NOT, "the rates at which LoRA fits are higher, and so is what is forgotten at them"

    def misfit(part: str, method: Method) -> float:
        return 0.1 if method.rank else 0.5

    fit = verdicts(made(10, 0.05, misfit))["LoRA forgets less also where both fit the task equally well"]
    assert fit.verdict == CANNOT_TELL and fit.why == "full on few, seed 0, comes below 0.115 nats at no rate"


def test_a_run_that_ended_early_has_learned_nothing() -> None:
    assert learned_loss({"loss_before": 5.0}) == 5.0 and learned_loss({"loss_before": 5.0, "loss": 9.0}) == 5.0
    results = made(10, 0.0)
    early = results.row(MANY, Method(16), GRID[-1], 0)
    for key in ("loss", "bits", "kept", "intruders"):
        del early[key]
    assert results.log_best_rates(MANY, Method(16)) == pytest.approx([math.log(10 * FULL_BEST)] * 3, abs=1e-9)


def test_page_and_markdown_say_what_the_figures_are() -> None:
    found = judged(MADE, made(10, 0.05).rows)
    page = render(found.results, found.judged, ABOUT)
    counts = [sum(one.verdict == kind for one in found.judged) for kind in (AGREES, DOES_NOT)]
    said = f"the runs agree with {counts[0]} and do not with {counts[1]}"
    assert said in page and said in markdown(found.results, found.judged, ABOUT)
    assert said not in " ".join(findings(made(1, 0.05), judged(MADE, made(1, 0.05).rows).judged))
    assert page.count("<svg") == 3 * 7 * 2 + 2 + 3 and "schulman2025lora" in page and page.endswith("</html>\n")
    stored = json.dumps(to_json(found), allow_nan=False)
    assert json.loads(stored)["claims"][0]["verdict"] == AGREES and known(math.inf) is None


def test_a_fact_is_a_word_and_digits_which_alone_are_learned() -> None:
    few, many = facts(3, 5, 0), facts(6, 5, 0)
    assert few == many[:3] and few != facts(3, 5, 1)
    assert all(example.supervised == 5 and example.labels[0] == IGNORED for example in many)
    assert len({example.id for example in many}) == 6


def test_every_fact_comes_once_an_epoch() -> None:
    examples = facts(6, 5, 0)
    steps = list(batches(examples, 3, 4, seed=1))
    assert [len(step) for step in steps] == [3] * 4
    assert all(sorted(one.id for step in half for one in step) == sorted(one.id for one in examples)
               for half in (steps[:2], steps[2:]))  # fmt: skip
    assert steps == list(batches(examples, 3, 4, seed=1)) != list(batches(examples, 3, 4, seed=2))


def test_a_direction_that_the_base_has_not_is_an_intruder() -> None:
    w = torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(w, full_matrices=False)
    foreign = 100 * torch.outer(u.sum(1) / 12**0.5, vh.sum(0) / 12**0.5)  # its cosine with each of W's is 12^-0.5
    assert count_intruders({"a": w}, {"a": torch.zeros_like(w)}) == 0
    assert count_intruders({"a": w}, {"a": 0.01 * torch.outer(u[:, 0], vh[0])}) == 0, "a direction that it has"
    assert count_intruders({"a": w}, {"a": foreign}) >= 1


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of runs that were made, which are told and not made; the fourth of them is stopped."""
    names: list[str] = []

    def train_run(plan: Plan, run: Any) -> dict[str, Any]:
        if len(names) == 3 and run.name not in names:
            names.append("stopped")
            raise KeyboardInterrupt
        names.append(run.name)
        return {"name": run.name, "seed": run.seed}

    monkeypatch.setattr(lora_runs, "train_run", train_run)
    return names


def test_it_goes_on_where_it_was(tmp_path: Path, trained: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_all(tmp_path, SHORT, 1, 1, progress=False)
    assert len(list((tmp_path / "runs").glob("*.json"))) == 3
    rows = run_all(tmp_path, SHORT, 1, 1, progress=False)
    expected = [run.name for run in SHORT.runs(1)]
    assert [row["name"] for row in rows] == expected == [name for name in trained if name != "stopped"]
    assert len(run_all(tmp_path, SHORT, 2, 1, progress=False)) == 2 * len(expected), "more seeds may follow"
    assert len(trained) == 1 + 2 * len(expected)


def test_other_settings_are_refused_by_name(tmp_path: Path, trained: list[str]) -> None:
    trained += ["a"] * 4  # none is stopped
    run_all(tmp_path, SHORT, 1, 1, progress=False)
    other = Plan(SHORT.parts, digits=5, kept=1, typical=2)
    with pytest.raises(ValueError, match="was begun with digits 4, got 5: give another folder"):
        run_all(tmp_path, other, 1, 1, progress=False)
    with pytest.raises(ValueError, match="was begun with digits 4, got 12"):
        run_all(tmp_path, PLAN, 1, 1, progress=False)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["llama"], "--lora is of the embedded base, got llama"),
        (["run.epochs=1"], "--lora takes no overrides, got run.epochs=1"),
        (["--mixture", "a.jsonl"], "--mixture is not of --lora, got a.jsonl"),
        (["--from", "a"], "--from is not of --lora, got a"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--seeds", "9"], "--seeds must be 1 to 8, got 9"),
    ],
)
def test_a_mistake_is_told_in_one_line(capsys: pytest.CaptureFixture[str], changes, expected: str) -> None:
    assert main(["reproduce", "--lora", *changes]) == 2
    assert capsys.readouterr().err.splitlines() == [f"lowrank: {expected}"]


def test_flags_of_the_comparison_are_refused_without_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "embedded", "--jobs", "2", "--mixture", "a.jsonl"]) == 2
    assert capsys.readouterr().err == "lowrank: --jobs is of --lora alone, got 2\n"
    (tmp_path / "file").write_text("")
    assert main(["reproduce", "--lora", "--out", str(tmp_path / "file")]) == 2
    assert "file: is a file, and --out must be a folder" in capsys.readouterr().err


def test_the_page_of_the_documentation_has_the_tables_of_the_runs_that_are_kept() -> None:
    root = Path(__file__).resolve().parents[3]
    found = judged(PLAN, read(root / "bench" / "results" / "lora.jsonl"))
    page = (root / "docs" / "lora.md").read_text(encoding="utf-8")
    assert markdown_table(CLAIMS_HEAD, claim_rows(found.judged)) in page
    assert markdown_table(METHODS_HEAD, method_rows(found.results)) in page
    stored = json.loads((root / "bench" / "results" / "lora.json").read_text(encoding="utf-8"))
    assert [one["verdict"] for one in stored["claims"]] == [one.verdict for one in found.judged]
    assert len(found.results.rows) == stored["runs"] == len(list(PLAN.runs(3)))


@pytest.mark.long
def test_the_whole_path_by_two_processes_has_the_runs_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["reproduce", "--lora", "--short", "--seeds", "1", "--out", str(out)]
    assert main([*arguments, "--jobs", "2"]) == 0
    said = capsys.readouterr().out
    assert said.count("verdict: cannot be told") == len(claims(SHORT)) and "lora.html has rates" in said, (
        "one seed tells nothing"
    )
    assert all((out / name).is_file() for name in ("lora.html", "lora.md", "lora.json", "lora.jsonl"))
    before = (out / "lora.jsonl").read_text().splitlines()
    last = sorted((out / "runs").iterdir())[-1]
    last.unlink()
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == len(before) == len(list(SHORT.runs(1)))
    pairs = zip(before, (out / "lora.jsonl").read_text().splitlines(), strict=True)
    for one, other in ((json.loads(row) | {"cpu_seconds": 0} for row in pair) for pair in pairs):
        assert one == other
