"""Trains the embedded base from nothing: the tokenizer, then every weight of a small Llama. Run once, by `make base`.

    python -m lowrank.train.pretrain.run RECIPE.toml OUT

A batch is a function of (seed, step), so a run that was stopped goes on from OUT/state.pt as if it had not been.
B rows, T tokens a row.
"""

import json
import sys
import time
import tomllib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import sentencepiece
import torch
import torch.nn.functional as F
from torch import Tensor

from lowrank.atomic_io import new_file, write_json, write_text
from lowrank.data import corpus
from lowrank.data.documents.document import make_documents
from lowrank.model.config_json import from_meta
from lowrank.model.llama import Llama
from lowrank.model.tokenizer import Tokenizer
from lowrank.progress import ProgressBar

from ..optim import AdamW, clip_gradients, learning_rate
from .plot import draw

Recipe = dict[str, Any]
Batch = tuple[Tensor, Tensor]  # tokens int64 [B, T + 1] and the weight float32 [B, T + 1] of predicting each


def train_tokenizer(recipe: Recipe, path: Path) -> None:
    """A SentencePiece BPE model with the settings of Llama's own: digits apart, bytes as a last resort."""
    # Whole passages, not lines: the trainer has to see how a word looks behind a line break.
    texts = (
        passage.text
        for index in range(recipe["tokenizer"]["samples"])
        for passage in corpus.mixed(Random(f"tokenizer|{recipe['seed']}|{index}"))
    )
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts,
        model_writer=model,
        model_type="bpe",
        vocab_size=recipe["tokenizer"]["vocab_size"],
        split_digits=True,
        byte_fallback=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        character_coverage=0.99995,
        max_sentencepiece_length=16,
        user_defined_symbols=["\n"],
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    with new_file(path) as aside:
        aside.write_bytes(model.getvalue())


class Encoder:
    """Samples -> token ids and the weight with which each is learned."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        pieces = [tokenizer.piece(token) for token in range(tokenizer.vocab_size)]
        self.has_digit = [any(character.isdigit() for character in piece) for piece in pieces]

    def encode(self, sample: corpus.Sample) -> tuple[list[int], list[float]]:
        """The begin token, the passages, tokenized one by one, and the end token."""
        tokens, weights = self.tokenizer.encode("", bos=True), [0.0]
        for passage in sample:
            ids = self.tokenizer.encode(passage.text, bos=False, eos=False)
            tokens += ids
            weights += [passage.weight] * len(ids)
        return [*tokens, self.tokenizer.eos_id], [*weights, 1.0]

    def batch(self, draw: Callable[[Random], corpus.Sample], rows: int, length: int, key: str) -> Batch:
        """Rows of samples one behind another, the last one cut; every row from its own generator."""
        tokens, weights = [], []
        for row in range(rows):
            rng = Random(f"{key}|{row}")
            row_tokens: list[int] = []
            row_weights: list[float] = []
            while len(row_tokens) <= length:
                more_tokens, more_weights = self.encode(draw(rng))
                row_tokens += more_tokens
                row_weights += more_weights
            tokens.append(row_tokens[: length + 1])
            weights.append(row_weights[: length + 1])
        return torch.tensor(tokens), torch.tensor(weights)


class Plan:
    """The batch and the learning rate of each step: the curriculum, then the mixture, then names too."""

    def __init__(self, recipe: Recipe, encoder: Encoder) -> None:
        self.recipe = recipe
        self.encoder = encoder
        low, high = recipe["curriculum"]["lines"]
        rows, length = recipe["curriculum"]["batch"]
        self.steps_per_line = recipe["curriculum"]["tokens_per_line"] // (rows * length)
        self.mixture_begins = self.steps_per_line * (high - low + 1)
        self.names_begin = self.mixture_begins + self._steps("mixture")
        self.steps = self.names_begin + self._steps("names_too")

    def _steps(self, phase: str) -> int:
        rows, length = self.recipe[phase]["batch"]
        return int(self.recipe[phase]["tokens"] // (rows * length))

    def batch(self, step: int) -> Batch:
        """The tokens of a step and their weights."""
        phase, draw = self._phase(step)
        rows, length = self.recipe[phase]["batch"]
        return self.encoder.batch(draw, rows, length, f"{self.recipe['seed']}|{step}")

    def _phase(self, step: int) -> tuple[str, Callable[[Random], corpus.Sample]]:
        """The table of the recipe that a step belongs to, and what its samples are drawn from."""
        if step >= self.names_begin:
            return "names_too", lambda rng: corpus.mixed(rng, corpus.NAMES_TOO)
        if step >= self.mixture_begins:
            return "mixture", corpus.mixed
        lines = self.recipe["curriculum"]["lines"][0] + step // self.steps_per_line
        return "curriculum", lambda rng: corpus.restatement(rng, rng.randint(max(1, lines // 2), lines))

    def learning_rate(self, step: int) -> float:
        """Warm-up, constant, and half a cosine over the last part of the last phase."""
        peak, warmup = self.recipe["optimizer"]["lr"], self.recipe["optimizer"]["warmup_steps"]
        last = self.steps - self.names_begin
        constant = self.names_begin + int(self.recipe["names_too"]["constant_share"] * last)
        if step < constant:
            return learning_rate(step, self.steps, peak, warmup, "constant")
        return learning_rate(step - constant, self.steps - constant, peak, 0, "cosine", floor=0.05)


def weighted_loss(model: Llama, batch: Batch) -> Tensor:
    """sum_t w[t] -log p(token[t] | token[< t]) / sum_t w[t], in nats; float32 []"""
    tokens, weights = batch
    logits = model(tokens[:, :-1])
    losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    wanted = weights[:, 1:].flatten()
    return (losses * wanted).sum() / wanted.sum()


@torch.inference_mode()
def measure(model: Llama, encoder: Encoder, documents: int) -> dict[str, float]:
    """On unseen companies, a document after its record: nats a token, and the share of its digits predicted right.

    Teacher-forced: each token is predicted from the true ones before it.
    """
    nats = tokens_seen = right = digits = 0.0
    for entry in make_documents(documents, seed=0, split="test"):
        ids, weights = encoder.encode([corpus.Passage(entry.input, 0), corpus.Passage(entry.output, 1)])
        tokens = torch.tensor([ids])
        logits = model(tokens[:, :-1])[0]
        target, learned = tokens[0, 1:], torch.tensor(weights[1:]) > 0
        nats += F.cross_entropy(logits[learned], target[learned], reduction="sum").item()
        tokens_seen += int(learned.sum())
        digit = torch.tensor([encoder.has_digit[token] for token in target.tolist()]) & learned
        right += int((logits.argmax(-1) == target)[digit].sum())
        digits += int(digit.sum())
    return {"document_loss": round(nats / tokens_seen, 4), "digits_right": round(right / digits, 4)}


def pretrain(recipe: Recipe, out: Path) -> None:
    """Writes OUT/tokenizer.model, params.json, consolidated.00.pth (float16), log.jsonl and curve.svg.

    An interrupted run goes on from its last measurement.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "tokenizer.model").exists():
        train_tokenizer(recipe, out / "tokenizer.model")
    encoder = Encoder(Tokenizer(out / "tokenizer.model"))
    plan = Plan(recipe, encoder)
    torch.manual_seed(recipe["seed"])
    model = Llama(from_meta(recipe["model"], "recipe"))
    initialise(model)
    settings = recipe["optimizer"]
    optimizer = AdamW(dict(model.named_parameters()), tuple(settings["betas"]), weight_decay=settings["weight_decay"])
    state_path = out / "state.pt"
    tokens, lines = 0, list[str]()
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        tokens, lines = state["tokens"], state["log"]
    minutes_before = json.loads(lines[-1])["minutes"] if lines else 0.0
    started, running = time.monotonic(), list[float]()
    steps = range(optimizer.steps, plan.steps)
    for step in ProgressBar(steps, "pretrain", plan.steps, initial=optimizer.steps, unit="step"):
        batch = plan.batch(step)
        loss = weighted_loss(model, batch)
        loss.backward()
        clip_gradients(model.parameters(), settings["clip"])
        optimizer.step(plan.learning_rate(step))
        tokens += batch[0].numel()
        running.append(loss.item())
        if (step + 1) % recipe["measure"]["every_steps"] == 0 or step + 1 == plan.steps:
            row = {"step": step + 1, "tokens": tokens, "loss": round(sum(running) / len(running), 4)}
            row |= measure(model, encoder, recipe["measure"]["documents"])
            row["minutes"] = round(minutes_before + (time.monotonic() - started) / 60, 1)
            lines.append(json.dumps(row))
            ProgressBar.write(lines[-1])
            running.clear()
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "tokens": tokens, "log": lines}
            with new_file(state_path) as aside:
                torch.save(state, aside)
            write_text(out / "log.jsonl", "".join(line + "\n" for line in lines))
            write_checkpoint(model, recipe, out)
            write_text(out / "curve.svg", draw([json.loads(line) for line in lines]))


def initialise(model: Llama) -> None:
    """Normal weights of deviation 0.02; those that end a residual branch (wo, w2) by 1 / sqrt(2 layers) less."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            ends_branch = name.endswith(("wo.weight", "w2.weight"))
            deviation = 0.02 / (2 * model.config.n_layers) ** 0.5 if ends_branch else 0.02
            torch.nn.init.normal_(parameter, std=deviation)


def write_checkpoint(model: Llama, recipe: Recipe, out: Path) -> None:
    """The weights as Meta publishes them: `consolidated.00.pth` in float16 and `params.json`."""
    with new_file(out / "consolidated.00.pth") as aside:
        torch.save({name: tensor.half() for name, tensor in model.state_dict().items()}, aside)
    write_json(out / "params.json", recipe["model"])


if __name__ == "__main__":
    pretrain(tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
