"""The data card: a manifest as a page of Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def write_card(manifest: Mapping[str, Any]) -> str:
    """The card of a manifest, in Markdown. It says nothing that the manifest does not."""
    data_sets = manifest["data_sets"]
    near, documents = manifest["near_duplicates"], manifest["test_documents"]
    sections = (
        f"# {manifest['total']:,} financial instructions",
        f"Made by `{manifest['made_by']}` with seed {manifest['seed']}, for the template `{manifest['template']}`. The "
        "same raw files, seed and total give the same bytes.",
        "## What is in it",
        _table(("data set", "part", "rows", "wanted", "labels"), _parts(data_sets)),
        "A part that had too few clean rows gave all of them, and the others gave the rest.",
        "## What was dropped",
        "In the order of the rules; a row counts for the first that drops it.",
        _table(("rule", *data_sets, "meaning"), _rules(manifest["rules"], data_sets)),
        f"Near duplicates have a Jaccard similarity of at least {near['jaccard']} over runs of {near['shingle_words']} "
        f"words, of tweets over runs of {near['shingle_characters_of_a_tweet']} characters; MinHash with "
        f"{near['permutations']} permutations and seed {near['seed']} finds the pairs.",
        "## Tests it is free of",
        f"The evaluation files below, and the {documents['entries']} test documents of seed {documents['seed']} that "
        "`lowrank data documents` makes. The build fails if a row of train.jsonl is in one of them. The tests of the "
        "Financial PhraseBank and of FiQA-SA are in none of the files and were not looked at.",
        "## Licences",
        "Three of the data sets declare none: this set is for whoever built it, not for passing on.",
        _table(("data set", "licence", "note"), ((n, d["licence"], d["licence_note"]) for n, d in data_sets.items())),
        "## Files it was made from",
        _table(("repository", "revision", "file", "bytes", "sha256"), _files(manifest["files"])),
        "## Files",
        _table(("file", "rows", "bytes", "sha256"), ((n, *_figures(f)) for n, f in manifest["output"].items())),
        "## What to know before training on it",
        "- The answers of FiQA_QA are opinions from a forum, not advice.\n"
        "- The labels of NWGI were written by ChatGPT; the best published weighted F1 on them is about 0.65.\n"
        "- Most entities that NER calls a person are words for a role, such as Borrower.\n"
        "- Which rows of sentiment-train are the Financial PhraseBank's and which FiQA-SA's headlines is read off the "
        "number of their copies (6 and 21).",
    )
    return "\n\n".join(sections) + "\n"


def _parts(data_sets: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    for name, data in data_sets.items():
        for part, counts in data["parts"].items():
            labels = ", ".join(f"{label} {count:,}" for label, count in counts["labels"].items())
            yield name, part, f"{counts['taken']:,}", f"{counts['wanted']:,}", labels


def _rules(rules: Mapping[str, str], data_sets: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    yield "(read)", *(f"{data['read']:,}" for data in data_sets.values()), "rows in the files"
    for rule, meaning in rules.items():
        yield rule, *(f"{data['dropped'][rule]:,}" for data in data_sets.values()), meaning
    yield "(clean)", *(f"{data['clean']:,}" for data in data_sets.values()), "rows that no rule drops"
    yield "(taken)", *(f"{data['taken']:,}" for data in data_sets.values()), "rows drawn"


def _files(files: Sequence[Mapping[str, Any]]) -> Iterable[Sequence[str]]:
    for file in files:
        revision = file["revision"] or "a local folder"
        yield file["repository"], revision, file["file"], f"{file['bytes']:,}", file["sha256"]


def _figures(file: Mapping[str, Any]) -> Sequence[str]:
    return f"{file['rows']:,}", f"{file['bytes']:,}", file["sha256"]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
