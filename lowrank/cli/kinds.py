"""Kinds of document of one's own: from a file that is named, or stored in a hat that was trained on them."""

from collections.abc import Iterable
from pathlib import Path

from ..data.documents.kind_file import kind_of_text, read_kind
from ..data.documents.kinds import KINDS, add_kind, find_kind


def stored_kinds(adapters: Iterable[Path]) -> dict[str, str]:
    """Name -> the text of the file, of the kinds that hats store.

    Raises ValueError naming both hats if they store different kinds of one name.
    """
    from ..checkpoints.fingerprint import read_record

    texts: dict[str, tuple[str, Path]] = {}
    for adapter in adapters:
        for name, text in read_record(adapter).get("kinds", {}).items():
            other, owner = texts.setdefault(name, (text, adapter))
            if other != text:
                raise ValueError(f"kind {name!r}: {owner} and {adapter} were trained on different kinds of this name")
    return {name: text for name, (text, _) in texts.items()}


def add_stored(adapters: Iterable[Path]) -> None:
    """Makes the kinds that hats store known."""
    for name, text in stored_kinds(adapters).items():
        add_kind(kind_of_text(text, f"the kind {name!r} of a hat"))


def chosen_kind(asked: str | None, adapters: Iterable[Path]) -> str:
    """The name of the kind that is asked for, which is known from then on.

    asked  FILE.toml, one of KINDS, or one that a hat stores; None is the only one that the hats store
    Raises ValueError for any other.
    """
    if asked is not None and asked.endswith(".toml"):
        kind = read_kind(asked)
        add_kind(kind)
        return kind.name
    stored = {} if asked in KINDS else stored_kinds(adapters)
    name = next(iter(stored)) if asked is None and len(stored) == 1 else asked
    if name in stored:
        add_kind(kind_of_text(stored[name], f"the kind {name!r} of a hat"))
    if name is None or find_kind(name) is None:
        raise ValueError(f"--kind must be FILE.toml, or one of {', '.join((*stored, *KINDS))}, got {asked!r}")
    return name


def given_kind(asked: str | None) -> str | None:
    """The name of the kind of FILE.toml or of one of KINDS, which is known from then on; None for None.

    Raises ValueError for any other.
    """
    return None if asked is None else chosen_kind(asked, ())


def check_kind(kind: str, adapters: Iterable[Path], *, force: bool = False) -> None:
    """Raises ValueError for a hat that was trained on documents of other kinds alone; `force` takes it all the same.

    A hat that tells no kinds, such as one that was not trained on documents, is of any.
    """
    from ..checkpoints.fingerprint import read_record

    for adapter in adapters:
        record = read_record(adapter)
        learned = record.get("learned_kinds", [*record.get("kinds", {})])
        if learned and kind not in learned and not force:
            known = ", ".join(learned)
            raise ValueError(f"{adapter}: was trained on {known}, and not on {kind!r}: --force takes it all the same")
