"""The embedded base: a batch is a function of its step, a stopped run goes on, the loss is its formula."""

import json
import tomllib

import pytest
import torch

import lowrank
from lowrank.data import corpus
from lowrank.model.config_json import from_meta
from lowrank.model.llama import Llama
from lowrank.train.pretrain import run as pretrain


@pytest.fixture(scope="module")
def recipe(embedded):
    small = tomllib.loads((embedded / "recipe.toml").read_text())
    small["tokenizer"] = {"vocab_size": 512, "samples": 300}
    small["model"] |= {"dim": 32, "n_layers": 1, "n_heads": 2, "multiple_of": 32, "vocab_size": 512}
    small["curriculum"] = {"lines": [2, 3], "tokens_per_line": 200, "batch": [2, 48]}
    small["mixture"] = {"tokens": 200, "batch": [2, 64]}
    small["names_too"] = {"tokens": 200, "batch": [2, 64], "constant_share": 0.5}
    small["measure"] = {"every_steps": 3, "documents": 2}
    return small


def test_the_committed_files_are_those_of_the_recipe(embedded, tokenizer):
    recipe = tomllib.loads((embedded / "recipe.toml").read_text())
    assert json.loads((embedded / "params.json").read_text()) == recipe["model"]
    assert tokenizer.vocab_size == recipe["tokenizer"]["vocab_size"]
    log = [json.loads(line) for line in (embedded / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == pretrain.Plan(recipe, pretrain.Encoder(tokenizer)).steps


@pytest.mark.slow
def test_the_committed_base_measures_what_its_log_says(embedded, tokenizer):
    log = json.loads((embedded / "log.jsonl").read_text().splitlines()[-1])
    found = pretrain.measure(lowrank.load(embedded, "fp32"), pretrain.Encoder(tokenizer), 40)
    assert found["digits_right"] == pytest.approx(log["digits_right"], abs=0.005)  # the log is before float16
    assert found["document_loss"] == pytest.approx(log["document_loss"], abs=0.005)
    assert found["digits_right"] >= 0.95


def test_the_tokenizer_keeps_digits_apart_and_falls_back_to_bytes(tokenizer):
    pieces = [tokenizer.piece(token) for token in tokenizer.encode("$812.4 million €", bos=False, eos=False)]
    assert [piece for piece in pieces if any(c.isdigit() for c in piece) and "<0x" not in piece] == ["8", "1", "2", "4"]
    assert tokenizer.decode(tokenizer.encode("a\n\nb € ü", bos=False, eos=False)) == "a\n\nb € ü"


def test_a_batch_is_a_function_of_its_step(recipe, tokenizer):
    plan = pretrain.Plan(recipe, pretrain.Encoder(tokenizer))
    for step in (0, plan.mixture_begins, plan.names_begin, plan.steps - 1):
        (tokens, weights), (again, _) = plan.batch(step), plan.batch(step)
        assert torch.equal(tokens, again)
        assert tokens.shape == weights.shape
        rows, length = recipe["mixture" if step >= plan.mixture_begins else "curriculum"]["batch"]
        assert tokens.shape == (rows, length + 1)
    assert not torch.equal(plan.batch(0)[0], plan.batch(1)[0])


def test_tokens_have_the_weight_of_their_passage(tokenizer):
    tokens, weights = pretrain.Encoder(tokenizer).encode([corpus.Passage("revenue: ", 0.1), corpus.Passage("$1", 1.0)])
    first = len(tokenizer.encode("revenue: ", bos=False, eos=False))
    assert weights == [0.0, *[0.1] * first, *[1.0] * (len(tokens) - first - 1)]


def test_the_rate_warms_up_stays_and_falls_to_a_twentieth(recipe, tokenizer, embedded):
    plan = pretrain.Plan(tomllib.loads((embedded / "recipe.toml").read_text()), pretrain.Encoder(tokenizer))
    peak = plan.recipe["optimizer"]["lr"]
    assert plan.learning_rate(0) == pytest.approx(peak / 100)
    assert plan.learning_rate(100) == plan.learning_rate(plan.mixture_begins) == peak
    assert plan.learning_rate(plan.steps - 1) == pytest.approx(0.05 * peak)


def test_the_loss_is_the_weighted_mean(recipe):
    torch.manual_seed(0)
    model = Llama(from_meta(recipe["model"]))
    tokens, weights = torch.randint(0, 512, (2, 9)), torch.rand(2, 9)
    logs = model(tokens[:, :-1]).log_softmax(-1)
    by_hand = (
        sum(-weights[b, t + 1] * logs[b, t, tokens[b, t + 1]] for b in range(2) for t in range(8))
        / weights[:, 1:].sum()
    )
    assert pretrain.weighted_loss(model, (tokens, weights)).item() == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_weights(recipe, tmp_path, monkeypatch):
    pretrain.pretrain(recipe, tmp_path / "whole")
    calls, original = [], pretrain.weighted_loss

    def interrupted(*args):
        calls.append(None)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(pretrain, "weighted_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(recipe, tmp_path / "cut")
    pretrain.pretrain(recipe, tmp_path / "cut")
    whole, cut = (torch.load(tmp_path / run / "consolidated.00.pth", weights_only=True) for run in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert (tmp_path / "whole/tokenizer.model").read_bytes() == (tmp_path / "cut/tokenizer.model").read_bytes()


def test_the_measure_counts_digits_of_documents_only(recipe, tokenizer):
    class Oracle(torch.nn.Module):
        """Predicts every token it is asked about."""

        def forward(self, tokens):
            return torch.nn.functional.one_hot(self.whole[:, 1:], tokenizer.vocab_size).float() * 50

    encoder, oracle = pretrain.Encoder(tokenizer), Oracle()
    original = encoder.encode

    def encode(sample):
        ids, weights = original(sample)
        oracle.whole = torch.tensor([ids])
        return ids, weights

    encoder.encode = encode
    assert pretrain.measure(oracle, encoder, 3) == {"document_loss": 0.0, "digits_right": 1.0}
