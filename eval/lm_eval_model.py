"""lm-evaluation-harness on our models: any of its tasks, on a base or on a hat    (the extra `lm-eval`)

    from lowrank.eval.lm_eval_model import HarnessModel
    lm_eval.simple_evaluate(HarnessModel(model, tokenizer), tasks=["arc_easy"])

The harness cuts texts into tokens as it does for its own models: context and continuation together, then apart; a text
begins with begin-of-text, as Llama's texts do. What a task gets back is three things:

    loglikelihood          log p(continuation | context), and whether each of its tokens is the likeliest
    loglikelihood_rolling  log p(text), in windows of the whole context, each token once
    generate_until         greedy, or sampled if the task says so, up to a stop string

This module imports lm_eval, so it is imported only where that is wanted.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lowrank.model.generate import generate
from lowrank.model.llama import Llama
from lowrank.model.tokenizer import Tokenizer
from lowrank.progress import ProgressBar

MOST_TOKENS = 256  # of an answer whose task sets no limit: the harness's own default
_KNOWN = {"until", "do_sample", "temperature", "top_p", "max_gen_toks", "max_new_tokens"}

Encoded = tuple[tuple[str, str], list[int], list[int]]


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """A model with its tokenizer as the harness wants it. The hat is the one that is in use when a task runs."""

    def __init__(self, model: Llama, tokenizer: Tokenizer, batch_size: int = 8, seed: int = 0) -> None:
        super().__init__()
        self.model = model
        self.pieces = tokenizer
        self.batch_size = batch_size
        self.seed = seed
        self.max_length = model.config.max_seq_len

    @property
    def eot_token_id(self) -> int:
        """End-of-text."""
        return self.pieces.eos_id

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without context: begin-of-text, or where there is none the end of the text before."""
        return self.pieces.eos_id if self.pieces.bos_id is None else self.pieces.bos_id

    @property
    def tokenizer_name(self) -> str:
        """The name under which the harness caches requests."""
        return f"lowrank-{self.pieces.vocab_size}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Text to ids, begin-of-text before them unless `add_special_tokens` is False."""
        return self.pieces.encode(string, bos=add_special_tokens is not False, eos=False)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """log p(text) of each request, in nats."""
        totals = []
        for request in ProgressBar(requests, desc="loglikelihood_rolling", disable=disable_tqdm):
            (text,) = request.args
            ids = self.tok_encode(text, add_special_tokens=False)
            windows = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            pairs = [(("", ""), *make_disjoint_window(window)) for window in windows]
            totals.append(sum(score for score, _ in self._loglikelihood_tokens(pairs, disable_tqdm=True)))
        return totals

    @torch.inference_mode()
    def _loglikelihood_tokens(
        self, requests: Sequence[Encoded], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """(sum of log p, whether all are the likeliest) of each continuation behind its context, in nats."""
        found: dict[int, tuple[float, bool]] = {}
        by_length = sorted(range(len(requests)), key=lambda index: -len(requests[index][1]) - len(requests[index][2]))
        with ProgressBar(total=len(requests), desc="loglikelihood", disable=disable_tqdm) as bar:
            for start in range(0, len(by_length), self.batch_size):
                batch = by_length[start : start + self.batch_size]
                rows = [self._fitting([*requests[index][1], *requests[index][2]]) for index in batch]
                tokens = torch.zeros(len(rows), max(map(len, rows)) - 1, dtype=torch.int64)
                for place, row in enumerate(rows):
                    tokens[place, : len(row) - 1] = torch.tensor(row[:-1])
                device = self.model.tok_embeddings.weight.device
                logits = self.model(tokens.to(device)).log_softmax(-1)
                for place, (index, row) in enumerate(zip(batch, rows, strict=True)):
                    targets = torch.tensor(requests[index][2], device=device)
                    scored = logits[place, len(row) - 1 - len(targets) : len(row) - 1]
                    chosen = scored.gather(-1, targets[:, None]).sum().item()
                    found[index] = (chosen, bool((scored.argmax(-1) == targets).all()))
                bar.update(len(batch))
        return [found[index] for index in range(len(requests))]

    def _fitting(self, ids: list[int]) -> list[int]:
        """The last ids that the model can see, of which the last is only predicted."""
        if len(ids) > self.max_length + 1:
            warnings.warn(f"a text of {len(ids)} tokens loses its beginning: {self.max_length} fit", stacklevel=2)
        return ids[-(self.max_length + 1) :]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The answer of each request up to its first stop string, which is not part of it.

        Raises ValueError for a way of generating that is not known here.
        """
        answers: dict[int, str] = {}
        with ProgressBar(total=len(requests), desc="generate_until", disable=disable_tqdm) as bar:
            for batch, options in self._batches(requests):
                prompts = [requests[index].args[0] for index in batch]
                for index, answer in zip(batch, self._generate(prompts, options), strict=True):
                    answers[index] = answer
                bar.update(len(batch))
        return [answers[index] for index in range(len(requests))]

    def _batches(self, requests: Sequence[Any]) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Requests with the same options together, the longest first."""
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(index)
        for group in groups.values():
            group.sort(key=lambda index: -len(requests[index].args[0]))
            for start in range(0, len(group), self.batch_size):
                yield group[start : start + self.batch_size], requests[group[0]].args[1]

    def _generate(self, prompts: Sequence[str], options: dict[str, Any]) -> list[str]:
        if unknown := sorted(options.keys() - _KNOWN):
            raise ValueError(f"generate_until: no such option here: {unknown[0]}; known: {', '.join(sorted(_KNOWN))}")
        until = options.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        most = int(options.get("max_gen_toks", options.get("max_new_tokens", MOST_TOKENS)))
        if not 1 <= most < self.max_length:
            raise ValueError(f"generate_until: max_gen_toks must be in 1 .. {self.max_length - 1}, got {most}")
        sampled = bool(options.get("do_sample", options.get("temperature", 0) > 0))
        rows = [self.tok_encode(prompt) for prompt in prompts]
        room, longest = self.max_length - most, max(map(len, rows))
        if longest > room:
            warnings.warn(f"a prompt of {longest} tokens loses its beginning: {room} fit", stacklevel=2)
        return generate(
            self.model,
            self.pieces,
            [row[-room:] for row in rows],
            max_new_tokens=most,
            stop=[stop for stop in stops if stop],
            answer=True,
            temperature=float(options.get("temperature", 1.0)) if sampled else 0.0,
            top_p=float(options.get("top_p", 1.0)),
            seed=self.seed,
        )
