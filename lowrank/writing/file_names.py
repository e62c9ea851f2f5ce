"""Names of files for records: letters, digits and hyphens of the record's name, no two alike on any file system."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

LONGEST = 60  # characters
MOST_BYTES = 180  # of 255, less what is put behind it
# Names that Windows keeps for devices, whatever stands behind a point.
_DEVICES = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)
TAKEN = frozenset({"index", "summary", "job"})  # by the files of the whole


def file_names(names: Sequence[str]) -> list[str]:
    """A name for each record, without a suffix: "Aldane Foods Ltd" -> "aldane-foods-ltd".

    Names that would be one file, such as those that differ in case alone, get the number of their record, from 1.
    """
    safe = [_safe(name) for name in names]
    counts = Counter(map(_folded, safe))
    found: list[str] = []
    used: set[str] = {_folded(name) for name in safe if counts[_folded(name)] == 1} | TAKEN
    for number, name in enumerate(safe, start=1):
        if not name or counts[_folded(name)] > 1 or _folded(name) in TAKEN:
            name = f"{name}-{number}" if name else f"record-{number}"
            while _folded(name) in used:  # another record is called so
                name += "-x"
            used.add(_folded(name))
        found.append(name)
    return found


def _safe(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).lower()
    text = re.sub(r"[\W_]+", "-", text).strip("-")[:LONGEST]
    text = text.encode()[:MOST_BYTES].decode(errors="ignore").strip("-")
    return f"{text}-" if _DEVICES.fullmatch(text) else text


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKD", name).casefold()
