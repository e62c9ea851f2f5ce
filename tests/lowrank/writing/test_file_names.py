"""Names of files for records: safe, readable, and no two alike on any file system."""

import random
import unicodedata

import pytest

from lowrank.writing.file_names import file_names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Aldane Foods Ltd", "Bellmere plc"], ["aldane-foods-ltd", "bellmere-plc"]),
        (["A", "a", "B"], ["a-1", "a-2", "b"]),
        (["../../etc/passwd", "C:\\Windows\\x", "/", ""], ["etc-passwd", "c-windows-x", "record-3", "record-4"]),
        (["Straße", "STRASSE"], ["straße-1", "strasse-2"]),
        (["Zoë", "Zoe\u0308"], ["zoë-1", "zoë-2"]),
        (["index", "summary", "job"], ["index-1", "summary-2", "job-3"]),
        (["CON", "nul", "com1"], ["con-", "nul-", "com1-"]),
        (["a", "a", "a-1"], ["a-1-x", "a-2", "a-1"]),
        (["日本 株式会社"], ["日本-株式会社"]),
        (["=1+1", "@x", "-5"], ["1-1", "x", "5"]),
    ],
)
def test_the_name_of_a_file_is_made_of_that_of_the_record(names: list[str], expected: list[str]) -> None:
    assert file_names(names) == expected


def test_random_names_are_safe_and_apart() -> None:
    draw = random.Random(5)
    letters = 'aAbB. /\\:*?"<>|\n\t\u0000-_éÉe\u0301ßſ日\u202e😀1'
    for _ in range(200):
        names = ["".join(draw.choice(letters) for _ in range(draw.randrange(0, 90))) for _ in range(20)]
        found = file_names(names)
        folded = [unicodedata.normalize("NFKD", name).casefold() for name in found]
        assert len(set(folded)) == len(names)
        for name in found:
            assert name and len(f"{name}.audit.json".encode()) < 255
            assert not set(name) & set('./\\:*?"<>|\n\t\u0000 ') and not name.startswith("-")
