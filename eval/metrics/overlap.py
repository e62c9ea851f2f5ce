"""Overlap of a text with a reference, or with the other texts: ROUGE, chrF, self-BLEU.

The numbers are those of rouge-score (Google's, with its stemmer) and sacrebleu, whose signature goes into reports; both
come with the extra `eval`. They count words, so a document with every figure wrong can score high: they are shown
beside the figures' own measures, never alone.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from lowrank.extras import need

ROUGE = ("rouge1", "rouge2", "rougeLsum")


def rouge(text: str, reference: str) -> dict[str, float]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-Lsum, 0 to 1.  Raises ValueError if the extra `eval` is not installed."""
    found = _scorer().score(reference, text)
    return {name: float(found[name].fmeasure) for name in ROUGE}


def chrf(text: str, reference: str) -> float:
    """chrF2 of one sentence, 0 to 1 (sacrebleu has it in per cent).  Raises ValueError as `rouge`."""
    return float(_chrf().sentence_score(text, [reference]).score) / 100


def chrf_signature() -> str:
    """sacrebleu's signature of its chrF."""
    _chrf().sentence_score("", [""])
    return str(_chrf().get_signature())


def self_bleu(texts: Sequence[str]) -> float:
    """The mean over texts of BLEU-4 against all others, 0 to 1: 1 if every text is the same    (Zhu et al. 2018)

    NaN for fewer than two texts.  Raises ValueError as `rouge`.
    """
    if len(texts) < 2:
        return float("nan")
    bleu = need("sacrebleu", "self-BLEU")
    scores = [bleu.sentence_bleu(text, [*texts[:i], *texts[i + 1 :]]).score for i, text in enumerate(texts)]
    return float(sum(scores)) / len(scores) / 100


@lru_cache(maxsize=1)
def _scorer() -> Any:
    return need("rouge_score.rouge_scorer", "ROUGE").RougeScorer(list(ROUGE), use_stemmer=True)


@lru_cache(maxsize=1)
def _chrf() -> Any:
    return need("sacrebleu.metrics", "chrF").CHRF()
