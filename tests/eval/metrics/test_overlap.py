"""ROUGE, chrF and self-BLEU are those of the libraries, in shares of 1; without them, one line says what is missing."""

import importlib

import pytest

from lowrank.eval.metrics import overlap


@pytest.mark.slow
def test_a_text_overlaps_itself_wholly_and_another_not_at_all() -> None:
    text = "Revenue was $12.5 million in the third quarter."
    assert overlap.rouge(text, text) == dict.fromkeys(overlap.ROUGE, 1.0)
    assert overlap.chrf(text, text) == pytest.approx(1.0)
    assert overlap.rouge("xyz", text) == dict.fromkeys(overlap.ROUGE, 0.0)


def test_rouge_by_hand() -> None:
    assert overlap.rouge("a b c d", "a b x y")["rouge1"] == pytest.approx(0.5)
    assert overlap.rouge("a b c d", "a b x y")["rouge2"] == pytest.approx(1 / 3)


def test_texts_that_are_all_the_same_have_a_self_bleu_of_one() -> None:
    text = "the company earned more than it did before"
    assert overlap.self_bleu([text] * 3) == pytest.approx(1.0)
    assert overlap.self_bleu([text, "nothing of that sort was ever seen here"]) < 0.1
    assert overlap.self_bleu([text]) != overlap.self_bleu([text])  # NaN


def test_the_signature_says_how_chrf_was_counted() -> None:
    assert "nw:0" in overlap.chrf_signature() and "version:" in overlap.chrf_signature()


@pytest.mark.parametrize(
    ("measured", "missing"), [(overlap.rouge, "rouge_score"), (overlap.chrf, "sacrebleu")], ids=["ROUGE", "chrF"]
)
def test_what_is_missing_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch, measured, missing) -> None:
    def fail(name):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(importlib, "import_module", fail)
    overlap._scorer.cache_clear()
    overlap._chrf.cache_clear()
    with pytest.raises(ValueError, match=f"{missing} is missing: pip install {missing.replace('_', '-')}$"):
        measured("a", "a")
