"""Rows: a round trip, and a file that is whole or as it was."""

import pytest

from lowrank.bench.rows import append, latest, of_one_commit, read

ROW = {"op": "forward", "provider": "ours", "dtype": "bfloat16", "M": 1, "N": 64, "K": 128, "ms": 0.25}


def test_rows_come_back_as_they_were_in_order_after_those_of_before(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    second = ROW | {"M": None, "versus_ours": {"ratio": 1.5}, "machine": "Ω"}
    append(path, [ROW])
    append(path, [second, ROW])
    assert read(path) == [ROW, second, ROW]


def test_a_row_that_json_cannot_say_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "rows.jsonl"
    append(path, [ROW])
    with pytest.raises(ValueError, match="not JSON compliant"):
        append(path, [ROW, ROW | {"ms": float("nan")}])
    assert read(path) == [ROW]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("line", "rule"), [('{"op": ', "not a row of JSON"), ("[1]", "must be a JSON object")])
def test_what_is_no_row_is_named_with_its_line(line, rule, tmp_path):
    path = tmp_path / "rows.jsonl"
    append(path, [ROW])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=rf"rows.jsonl:2: .*{rule}"):
        read(path)


def test_of_several_runs_the_last_counts():
    again, other = ROW | {"ms": 0.5}, ROW | {"M": 2}
    assert latest([ROW, other, again]) == [again, other]


def test_a_chart_has_the_rows_of_one_commit():
    old = [ROW | {"commit": "a", "M": m} for m in (1, 2)]
    one = ROW | {"commit": "b", "M": 1}
    new = [ROW | {"commit": "c", "M": m} for m in (1, 4)]
    assert of_one_commit([*old, one, *new]) == new
    assert of_one_commit([*new, *old, one]) == old
    assert of_one_commit([*old, one]) == old
    assert of_one_commit([]) == []
