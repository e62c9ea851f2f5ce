"""Progress of a run: a bar, a line of JSON a step, the held-out loss, and a tracker if one is configured."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TextIO

import torch

from lowrank.data.encoding.batching import Example, PreferencePair
from lowrank.data.encoding.packing import rows_of_one
from lowrank.model.config import ModelConfig
from lowrank.model.generate import generate_tokens
from lowrank.model.llama import Llama
from lowrank.model.loss import IGNORED
from lowrank.model.tokenizer import Tokenizer
from lowrank.progress import ProgressBar

from .config import TrainConfig
from .parallel.single import SingleProcess
from .plan.flops import peak_bytes, training_flops
from .resume.folder import HELD_OUT, LOG
from .step import Objective
from .trackers import find_tracker

BATCH = 8  # held-out rows at a time
TRACKED = ("loss", "reward_margin", "reward_accuracy", "grad_norm", "lr", "tokens", "seconds", "held_out_loss")

Row = dict[str, Any]


@dataclass(frozen=True)
class HeldOut:
    """Entries that are never trained on: their loss, and what the model writes for the first of them."""

    examples: Sequence[Example]
    tokenizer: Tokenizer
    every: int
    samples: int

    def is_due(self, step: int, steps: int) -> bool:
        """Every so many steps, and at the end."""
        return self.every > 0 and (step % self.every == 0 or step == steps)

    def measure(self, model: Llama, step: int, team: SingleProcess, objective: Objective) -> Row:
        """The loss of a unit of the objective, and the sample documents; the model trains on afterwards."""
        model.eval()
        loss, *measured = self._means(model, team, objective)
        row = {
            "step": step,
            "loss": loss,
            **dict(zip(objective.measures, measured, strict=True)),
            "samples": self._written(model, self.examples[: self.samples], team),
        }
        model.train()
        return row

    @torch.no_grad()
    def _means(self, model: Llama, team: SingleProcess, objective: Objective) -> list[float]:
        sums, rows = [0.0] * (1 + len(objective.measures)), rows_of_one(self.examples)
        for start in range(0, len(rows), BATCH):
            loss = objective(model, team.share(rows[start : start + BATCH]))
            sums = [before + one for before, one in zip(sums, (loss.nats.item(), *loss.measured), strict=True)]
        return [one / objective.units(rows) for one in team.sum(sums)]

    def _written(self, model: Llama, examples: Sequence[Example], team: SingleProcess) -> list[dict[str, str]]:
        """The likeliest text behind each entry's prompt, half as long again as what it should be, at most.

        All in one batch, and with shards by all processes together, as every token gathers all of the model: the first
        process says when a text ends, so that no rounding of another's can part them.
        """
        if not examples:
            return []
        examples = [one.chosen if isinstance(one, PreferencePair) else one for one in examples]
        asked = [next(place for place, label in enumerate(one.labels) if label != IGNORED) for one in examples]
        most = [(len(example) - begin) * 3 // 2 for example, begin in zip(examples, asked, strict=True)]
        texts: list[list[int]] = [[] for _ in examples]

        def ends(row: int, token: int) -> bool:
            texts[row].append(token)
            return team.broadcast_bool(token in self.tokenizer.eos_ids or len(texts[row]) == most[row])

        prompts = [example.tokens[:begin] for example, begin in zip(examples, asked, strict=True)]
        shapes = False if team.shards else None  # a graph would hold what is gathered for a moment only
        for _ in generate_tokens(model, prompts, max_new_tokens=max(most), ends=ends, fixed_shapes=shapes):
            pass
        decode = self.tokenizer.decode
        return [
            {
                "id": example.id,
                "prompt": decode(list(prompt)),
                "text": decode([token for token in text if token not in self.tokenizer.eos_ids]),
                "reference": decode(list(example.tokens[len(prompt) :])),
            }
            for example, prompt, text in zip(examples, prompts, texts, strict=True)
        ]


class Watch:
    """Shows and records a run. `train.jsonl` and `held_out.jsonl` are written from the start of the run on, always."""

    def __init__(
        self,
        out: Path,
        config: TrainConfig,
        steps: int,
        model: ModelConfig,
        log: Sequence[Row],
        progress: bool,
        limit_tflops: float | None,
    ) -> None:
        self._config, self._model, self._limit = config, model, limit_tflops
        self._device = torch.device(config.base.device)
        self._trackers = [tracker(config, out) for tracker in map(find_tracker, config.watch.trackers)]
        self._held_out = _reopened(out / HELD_OUT, len(log)) if config.watch.every else None
        self._log = (out / LOG).open("w", encoding="utf-8")
        self._log.writelines(json.dumps(row) + "\n" for row in log)
        self._bar = ProgressBar(
            total=steps,
            initial=len(log),
            desc=f"train {config.adapter.name}",
            unit="step",
            disable=not progress,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for close in (self._bar.close, self._log.close, *(tracker.close for tracker in self._trackers)):
            close()
        if self._held_out is not None:
            self._held_out.close()

    def step(self, row: Row) -> None:
        """Records a step and moves the bar."""
        self._log.write(json.dumps(row) + "\n")
        self._log.flush()
        for tracker in self._trackers:
            tracker.log(row["step"], {key: row[key] for key in TRACKED if row.get(key) is not None})
        self._bar.set_postfix(self.shown(row), refresh=False)
        self._bar.update()

    def held_out(self, row: Row) -> None:
        """Records what was measured on what is held out."""
        assert self._held_out is not None
        self._held_out.write(json.dumps(row) + "\n")
        self._held_out.flush()

    def shown(self, row: Row) -> dict[str, str]:
        """The figures behind the bar: loss, tokens a second, share of the limit, memory."""
        loss = "skipped" if row["loss"] is None else f"{row['loss']:.3f}"
        shown = {"loss": loss}
        if row.get("reward_accuracy") is not None:
            shown |= {"margin": f"{row['reward_margin']:.2f}", "right": f"{row['reward_accuracy']:.0%}"}
        shown |= {"tok/s": f"{row['tokens'] / row['seconds']:,.0f}"}
        if self._limit:
            counts = (row["positions"], row["pairs"], row["supervised_tokens"])
            tflops = training_flops(self._model, self._config, *counts) / row["seconds"] / 1e12
            self._limit = max(self._limit, tflops)  # of a machine that others had a part of while it was measured
            shown["of limit"] = f"{tflops / self._limit:.0%}"
        if "held_out_loss" in row:
            shown["held out"] = f"{row['held_out_loss']:.3f}"
        return {**shown, "GB": f"{peak_bytes(self._device) / 1e9:.2f}"}


class NullMonitor:
    """For the processes whose figures the first one shows."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def step(self, row: Row) -> None:
        """Says nothing."""

    def held_out(self, row: Row) -> None:
        """Says nothing."""


def read_rows(path: Path) -> list[Row]:
    """The rows of a log, also of one that is being written: a last line that is not whole is left out.

    Raises ValueError with file and line for another that is not.
    """
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not a row of a log: {error}") from None
    return rows


def _reopened(path: Path, steps: int) -> TextIO:
    """The file with the rows of the first so many steps, to be written on."""
    kept = [row for row in read_rows(path) if row["step"] <= steps]
    file = path.open("w", encoding="utf-8")
    file.writelines(json.dumps(row) + "\n" for row in kept)
    return file
