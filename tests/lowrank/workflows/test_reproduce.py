"""The write-up in one command, on the embedded base: both hats, both precisions, every claim."""

import importlib.util
import json
from pathlib import Path

import pytest

from lowrank.cli import main
from lowrank.eval.tasks.documents import Documents
from lowrank.model.config import PRESETS, ModelConfig
from lowrank.train import trainer
from lowrank.train.config import TrainConfig
from lowrank.workflows.writeup_claims import claims

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:the warm-up takes")]  # of runs that were made short

_PATH = Path(__file__).parent.parent / "data" / "mixture" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("mixture_fixtures", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
_FIXTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FIXTURES)
raw = _FIXTURES.raw

MEASURED = {
    "documents": {"bytes": 79_990_000, "seconds": 301.0, "parameters": 19_988_480, "entries": 100},
    "mixture": {"bytes": 67_140_000, "seconds": 7500.0, "parameters": 16_777_216, "entries": 15_000},
    "base": {"full": 13_476_831_232, "four_bit": 3_865_000_000},
}


def by_what(config: ModelConfig):
    return {claim.what: claim for claim in claims(config, MEASURED)}


def test_each_number_of_the_write_up_stands_beside_the_one_that_its_shapes_give() -> None:
    found = by_what(PRESETS["7b"])
    assert found["of those, trained at rank 8"].ours == "160,000"
    share = found["which is"]
    assert (share.theirs, share.ours) == ("0.016 %", "0.16 %")
    assert "wrong by ten" in share.verdict
    assert found["Llama 2 7B in 16 bits"].ours == "13.48 GB"
    assert found["the same in 4 bits"].ours.startswith("3.24 GB of codes, 3.87 GB")
    assert found["its hat"].ours.startswith("79.95 MB")
    assert found['its hat, "somehow smaller"'].ours.startswith("67.11 MB")


def test_on_llama_2_what_was_found_is_a_test_of_the_claim_and_elsewhere_it_is_not() -> None:
    rows = claims(PRESETS["7b"], MEASURED)
    assert [row.found for row in rows if row.what == "training it"] == ["5.0 minutes", "2.1 hours"]
    assert not any("another base" in row.verdict for row in rows)
    assert by_what(PRESETS["13b"])["its hat"].verdict == "right; found on another base"


def test_a_mixture_that_is_not_of_the_write_ups_size_is_called_a_stand_in() -> None:
    small = {**MEASURED, "mixture": {**MEASURED["mixture"], "entries": 60}}
    verdicts = {claim.what: claim.verdict for claim in claims(PRESETS["7b"], small)}
    assert verdicts["entries of the second"] == "a stand-in of 60: times and scores are not comparable"


@pytest.fixture(scope="module")
def mixture(raw, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("mixture") / "out"
    assert main(["data", "mixture", str(folder), "--from", str(raw), "--total", "60"]) == 0
    return folder


@pytest.fixture(scope="module", autouse=True)
def short_texts():
    """Documents are cut after 120 tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Documents, "most_tokens", lambda *_: 120)
        yield


@pytest.fixture(scope="module")
def arguments(mixture, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("reproduce") / "out"
    more = ["--from", mixture, "--out", out, "--n", 2]
    return [str(one) for one in ("reproduce", "embedded", "run.epochs=1", "--mixture", mixture / "train.jsonl", *more)]


@pytest.fixture(scope="module")
def out(arguments):
    assert main(arguments) == 0
    return Path(arguments[arguments.index("--out") + 1])


@pytest.fixture(scope="module")
def figures(out):
    return json.loads((out / "reproduce.json").read_text())


def test_both_hats_meet_both_precisions_on_every_task(figures) -> None:
    cells = {(row["task"], row["adapter"], row["weights"]) for row in figures["cells"]}
    hats, precisions = (None, "documents", "mixture"), ("nf4-dq", "fp32")
    assert cells == {(t, h, w) for t in ("documents", "sentiment", "ner") for h in hats for w in precisions}
    assert {one["question"] for one in figures["comparisons"]} == {"gain", "cost"}


def test_the_hats_have_the_write_ups_shapes(out) -> None:
    for name, rank, targets in (("documents", 8, "all"), ("mixture", 16, "attention")):
        config = TrainConfig.read(out / f"{name}.toml")
        assert (config.adapter.rank, config.adapter.targets, config.base.weights) == (rank, targets, "nf4-dq")
        written = json.loads((out / name / "hat/adapter_config.json").read_text())
        assert (written["r"], len(written["target_modules"])) == (rank, 7 if targets == "all" else 4)


def test_every_claim_is_in_every_report(out, figures) -> None:
    theirs = [claim["theirs"] for claim in figures["claims"]]
    wanted = {"160,000", "0.016 %", "80 MB", "67.3 MB", "13 GB", "~3.2 GB", "about 5 minutes", "a bit over 2 hours"}
    assert wanted | {"noticeable results"} <= set(theirs)
    text, page = (out / "reproduce.md").read_text(), (out / "reproduce.html").read_text()
    for claim in figures["claims"]:
        assert claim["what"] in text
    assert all(claim in text and claim in page for claim in wanted)
    assert "http://" not in page and "https://" not in page


def test_run_again_it_trains_nothing_and_says_the_same(
    arguments, figures, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.Trainer, "step", None)  # would fail if it were called
    monkeypatch.setattr("lowrank.eval.grid.grid.load_with_adapters", None)
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == figures


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["embedded"], "--mixture: name the file that the second hat learns from"),
        (["embedded", "--mixture", "nowhere.jsonl"], "--mixture: nowhere.jsonl: no such file"),
        (["embedded", "--mixture", "nowhere.jsonl", "--n", "0"], "--n must be at least 1, got 0"),
        (["nowhere", "--mixture", "nowhere.jsonl"], "nowhere"),
    ],
)
def test_a_mistake_is_told_in_one_line(capsys: pytest.CaptureFixture[str], changes, expected) -> None:
    try:
        status = main(["reproduce", *changes])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert expected in capsys.readouterr().err


def test_a_base_without_full_precision_is_refused(capsys: pytest.CaptureFixture[str], golden: Path, mixture) -> None:
    base = golden / "hf-tiny-qlora" / "base-bnb-nf4-dq"
    assert main(["reproduce", str(base), "--mixture", str(mixture / "train.jsonl")]) == 2
    assert "is quantized already" in capsys.readouterr().err
