"""From raw files to the instruction set: the rules in their order, the draw, and the files with their manifest.

OUT/train.jsonl             the rows to learn
OUT/tfns-validation.jsonl   an evaluation set, every row as it came
OUT/ner-test.jsonl          another
OUT/manifest.json           what went in, what each rule dropped, what came out
OUT/DATA_CARD.md            the same, to be read

The bytes follow from the raw files, `seed` and `total`. The folder appears whole or not at all.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ...atomic_io import new_folder, sha256_of, write_json
from . import clean, duplicates, leakage
from .card import write_card
from .fetch import RawFile
from .layouts import read_files
from .rows import MixtureRow, read_rows, write_rows
from .sample import draw, wanted
from .sources import DATA_SETS, PARTS, TOTAL

TRAIN = "train.jsonl"
MANIFEST = "manifest.json"
CARD = "DATA_CARD.md"
EVALUATION = {"tfns-validation.jsonl": "validation", "ner-test.jsonl": "test"}  # file -> the split that it is

# The template the rows are meant for; they hold its fields, not its text, so another is one line in a training run.
TEMPLATE = "alpaca"

# Name, function, and what the card says. Rows that a rule drops are not seen by the ones after it.
RowRule = tuple[str, clean.Rule, str]
ROW_RULES: tuple[RowRule, ...] = (
    ("no_output", clean.without_output, 'the answer is empty, "nan" or "."'),
    ("no_input", clean.without_input, "nothing is left of the text without its t.co link"),
    ("last_token_lost", clean.last_token_lost, "the sentence ends in a name, whose entity FinGPT's converter lost"),
    ("copy_of_tfns", clean.copies_of_tfns, "a row of TFNS inside sentiment-train"),
    ("too_long", clean.too_long, f"an answer of over {clean.ANSWER_CHARACTERS:,} characters"),
    ("other_answer", clean.other_answers, "a question has one answer, its longest"),
    ("conflict", duplicates.conflicting, "the same question has several answers: all are dropped"),
    ("duplicate", duplicates.repeated, "the same question again"),
    ("near_duplicate", duplicates.nearly_repeated, "nearly the same question again"),
)


def leak_rules(guard: leakage.Guard) -> tuple[RowRule, ...]:
    """The rules that a row breaks by being in a test."""
    return (
        ("leak", guard.same, "the text of a test entry"),
        ("near_leak", guard.nearly_same, "nearly the text of a test entry"),
        ("passage_leak", guard.same_passage, f"{leakage.PASSAGE_WORDS} words in a row of a test entry"),
    )


def build_mixture(out: Path, files: Sequence[RawFile], *, seed: int = 7, total: int = TOTAL) -> dict[str, Any]:
    """Builds the set of `total` rows out of the raw files into the folder `out`; returns its manifest.

    Raises ValueError for raw files that are not what they should be, too few rows, or an `out` that holds something
    else; LeakageError, with nothing written, if a row to learn from is in a test after all.
    """
    _check_target(out)
    if total < 1:
        raise ValueError(f"total must be at least 1, got {total}")
    splits = _read_splits(files)
    read = splits["train"]
    held_out = {name: splits[split] for name, split in EVALUATION.items()}
    rules = (*ROW_RULES, *leak_rules(_guard(held_out)))
    clean_rows, dropped = apply_rules(read, rules)
    taken = draw(clean_rows, total, seed)
    with new_folder(out) as aside:
        for name, rows in {TRAIN: taken, **held_out}.items():
            write_rows(aside / name, rows)
        # Asked of what is on disk, by a guard that knows nothing of the rules above.
        _guard({name: read_rows(aside / name) for name in EVALUATION}).check(read_rows(aside / TRAIN))
        manifest = {
            **_settings(seed, total),
            "rules": {name: meaning for name, _, meaning in rules},
            "files": [file.to_json() for file in files],
            "data_sets": _counts(read, dropped, taken, wanted(total)),
            "output": {name: _output(aside / name) for name in (TRAIN, *EVALUATION)},
        }
        write_json(aside / MANIFEST, manifest)
        (aside / CARD).write_text(write_card(manifest), encoding="utf-8")
    return manifest


def apply_rules(
    rows: Sequence[MixtureRow], rules: Sequence[RowRule]
) -> tuple[list[MixtureRow], dict[str, dict[str, int]]]:
    """The rows that no rule drops, and data set -> rule -> how many it dropped."""
    kept = list(rows)
    dropped = {data.name: {name: 0 for name, _, _ in rules} for data in DATA_SETS}
    for name, rule, _ in rules:
        ids = rule(kept)
        for row in kept:
            if row.id in ids:
                dropped[PARTS[row.source].name][name] += 1
        kept = [row for row in kept if row.id not in ids]
    return kept, dropped


def _check_target(out: Path) -> None:
    """The folder is going to be replaced, so it has to be ours, or nothing."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file, OUT must be a folder")
    ours = {TRAIN, *EVALUATION, MANIFEST, CARD}
    if out.is_dir() and (others := sorted({path.name for path in out.iterdir()} - ours)):
        raise ValueError(f"{out}: holds something else than a mixture, {others[0]}; name a new folder")


def _read_splits(files: Sequence[RawFile]) -> dict[str, list[MixtureRow]]:
    """Split -> its rows, of all data sets together."""
    splits: dict[str, list[MixtureRow]] = {}
    for (split, _), group in groupby(files, key=lambda file: (file.split, file.data.name)):
        splits.setdefault(split, []).extend(read_files(list(group)))
    return splits


def _guard(held_out: Mapping[str, Sequence[MixtureRow]]) -> leakage.Guard:
    return leakage.Guard(leakage.HeldOutTexts.of([row for rows in held_out.values() for row in rows]))


def _settings(seed: int, total: int) -> dict[str, Any]:
    return {
        "made_by": "lowrank data mixture",
        "seed": seed,
        "total": total,
        "template": TEMPLATE,
        "near_duplicates": {
            "jaccard": duplicates.THRESHOLD,
            "permutations": duplicates.PERMUTATIONS,
            "seed": duplicates.SKETCH_SEED,
            "shingle_words": duplicates.WORDS,
            "shingle_characters_of_a_tweet": duplicates.CHARACTERS,
        },
        "test_documents": {"entries": leakage.DOCUMENTS, "seed": leakage.DOCUMENTS_SEED},
    }


def _counts(
    read: Sequence[MixtureRow],
    dropped: Mapping[str, dict[str, int]],
    taken: Sequence[MixtureRow],
    planned: Mapping[str, int],
) -> dict[str, Any]:
    """Per data set: read = sum of dropped + clean; of the clean rows `taken` are in the set, by part and label.

    A part that was short of rows shows less taken than wanted, and the others more.
    """
    result = {}
    for data in DATA_SETS:
        count = sum(PARTS[row.source] is data for row in read)
        parts = {part: [row for row in taken if row.source == part] for part in data.parts}
        result[data.name] = {
            "licence": data.licence,
            "licence_note": data.note,
            "read": count,
            "dropped": dropped[data.name],
            "clean": count - sum(dropped[data.name].values()),
            "taken": sum(map(len, parts.values())),
            "parts": {
                part: {
                    "wanted": planned[part],
                    "taken": len(rows),
                    "labels": dict(sorted(Counter(row.label for row in rows if row.label).items())),
                }
                for part, rows in parts.items()
            },
        }
    return result


def _output(path: Path) -> dict[str, int | str]:
    return {"rows": len(read_rows(path)), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
