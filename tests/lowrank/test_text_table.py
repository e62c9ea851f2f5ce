"""Tables in plain text fit the terminal, and lose nothing."""

import pytest

from lowrank.text_table import table

HEADER = ("tensor", "error", "why it is so")


def test_words_stand_left_and_figures_right() -> None:
    assert table([("wq", 1.5, "a"), ("w_long", 22, "b c")], HEADER, 80).splitlines() == [
        "tensor  error  why it is so",
        "---------------------------",
        "wq        1.5  a",
        "w_long     22  b c",
    ]


def test_a_cell_of_many_words_is_wrapped_and_keeps_them_all() -> None:
    sentence = "the weight has columns that no block of sixty-four divides, so plain torch takes the product"
    lines = table([("wq", 1, sentence), ("wk", 2, "short")], HEADER, 60).splitlines()
    assert max(map(len, lines)) <= 60 and lines[-1] == "wk          2  short"
    assert " ".join(line[15:] for line in lines[2:-1]) == sentence


@pytest.mark.parametrize("width", [40, 80, 100])
def test_a_table_with_too_many_columns_is_continued_below(width) -> None:
    columns = [f"figure {place}" for place in range(14)]
    rows = [[f"layer {row}", *(1000.5 + row * place for place in range(14))] for row in range(2)]
    blocks = table(rows, ["tensor", *columns], width).split("\n\n")
    assert len(blocks) > 1 and max(len(line) for block in blocks for line in block.splitlines()) <= width
    assert all([line.split()[0] for line in block.splitlines()[2:]] == ["layer"] * 2 for block in blocks)
    found = [cell for block in blocks for cell in block.splitlines()[-1].split()[2:]]
    assert found == [str(value) for value in rows[1][1:]]


def test_a_word_that_is_wider_than_all_is_left_whole() -> None:
    path = "/a/path/that/is/longer/than/the/terminal/has/columns"
    assert path in table([(path, 1)], ("file", "bytes"), 30)


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, header = [("wq", *range(10**9, 10**9 + 9))], ["tensor", *(f"column {place}" for place in range(9))]
    monkeypatch.setenv("COLUMNS", "200")
    assert len(table(rows, header).splitlines()) == 3
    monkeypatch.setenv("COLUMNS", "50")
    assert max(map(len, table(rows, header).splitlines())) <= 50
