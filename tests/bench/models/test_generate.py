"""The generation bench: both sides write the same with the same weights and hat, and a row says where it comes from."""

import json
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest
import torch

from lowrank.adapters import use_adapter
from lowrank.adapters.files import load_adapter
from lowrank.bench.models import llamacpp
from lowrank.bench.models.generate import B_STD, PROMPT_TOKENS, WARM, bars, leading
from lowrank.bench.models.generate_workers import NEW_TOKENS, PROVIDERS
from lowrank.bench.models.sides import SHAPES, make, random_tokens
from lowrank.checkpoints.load import load
from lowrank.cli import main

PROMPTS = 3
KEYS = {
    *("bench", "provider", "shape", "format", "dtype", "rank", "prompt_tokens", "new_tokens", "tokens_per_s", "ms"),
    *("ms_min", "ms_spread", "turns", "peak_bytes", "versus_ours", "machine", "threads", "versions", "commit", "date"),
    *("load", "missing"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    made = tmp_path_factory.mktemp("bench")
    make(made, SHAPES["tiny"], random_tokens(SHAPES["tiny"], PROMPTS, PROMPT_TOKENS), B_STD)
    return made


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_each_side_writes_what_exact_logits_allow(folder: Path) -> None:
    """Every token of either is the likeliest behind its own text, up to what bfloat16 blurs."""
    pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes")
    exact = load(folder / "base", "dequant:nf4-dq", torch.float32)
    load_adapter(exact, "bench", folder / "hat")
    prompts = torch.load(folder / "tokens.pt", weights_only=True)
    writers = [provider(folder) for provider in PROVIDERS.values()]
    for prompt, write in product(prompts, writers):
        written = write(prompt)
        assert len(written) == NEW_TOKENS
        use_adapter(exact, "bench")
        worn = _short_of_the_likeliest(exact, prompt, written)
        use_adapter(exact, None)
        bare = _short_of_the_likeliest(exact, prompt, written)
        assert worn < 2**-7 < bare  # two ulp of a bfloat16 between a half and one; and the hat matters


def _short_of_the_likeliest(model, prompt, written) -> float:
    """Largest gap between the logit of a written token and the largest logit."""
    with torch.inference_mode():
        logits = model(torch.cat([prompt, torch.tensor(written[:-1])])[None])[0, len(prompt) - 1 :]
    chosen = logits.gather(1, torch.tensor(written)[:, None])[:, 0]
    return (logits.amax(1) - chosen).max().item()


@pytest.mark.slow
def test_a_row_says_where_it_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    out = tmp_path / "rows.jsonl"
    assert main(["bench", "generate", "--shape", "tiny", "--turns", "2", "--threads", "1", "--out", str(out)]) == 0
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert row.keys() == KEYS
    assert (row["bench"], row["provider"], row["turns"]) == ("generate", "ours", 2)
    assert row["tokens_per_s"] == pytest.approx(1e3 / row["ms"], rel=1e-2)
    assert row["peak_bytes"] > 1e8 and row["versus_ours"] is None
    shown = capsys.readouterr().out
    assert "ours" in shown and "against" not in shown  # no bar without the peer


@pytest.mark.long
def test_the_peer_is_measured_against_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(llamacpp.FOLDER, raising=False)  # it has tests of its own
    for package in ("transformers", "peft", "bitsandbytes"):
        pytest.importorskip(package)
    assert main(["bench", "generate", "--peers", "--shape", "tiny", "--turns", "1", "--threads", "1", "--json"]) == 0
    ours, peer = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ours["versus_ours"] is None and peer["provider"] == "transformers+peft+bitsandbytes"
    assert ours["missing"] == "" and ("kernels" in peer["missing"]) == (find_spec("kernels") is None)
    versus = peer["versus_ours"]
    assert versus["ratio"] == pytest.approx(peer["ms"] / ours["ms"], rel=1e-2)
    # Of random weights, on which the first two of a distribution may lie within the rounding of bfloat16.
    assert len(versus["equal_tokens"]) == WARM + 1 and max(versus["equal_tokens"]) > 0


def test_leading_tokens_are_counted_up_to_the_first_that_differs() -> None:
    assert [leading([1, 2, 3], other) for other in ([1, 2, 3], [1, 9, 3], [9, 2, 3])] == [3, 1, 0]


def test_the_bar_is_of_the_true_shape_and_the_peer() -> None:
    rows = [
        {"shape": shape, "versus_ours": versus}
        for shape, versus in (("167m", None), ("167m", {"ratio": 2.9}), ("tiny", {"ratio": 9.0}))
    ]
    (bar,) = bars(rows)
    assert str(bar) == "MISSED  generation against transformers + peft + bitsandbytes: 2.900, at least 3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "8b"], "shape must be one of tiny, 167m, got '8b'"),
        (["--turns", "0"], "--turns must be at least 1"),
        (["--threads", "0"], "--threads must be at least 1"),
    ],
)
def test_a_mistake_is_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "generate", *arguments]) == 2
    assert message in capsys.readouterr().err
