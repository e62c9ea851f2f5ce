"""The table of output heads: its rows, on few documents."""

import pytest

from lowrank.workflows.head_loss import compare


@pytest.mark.slow
def test_a_head_in_fewer_bits_is_compared_document_by_document() -> None:
    plain, half, eight, four = compare(documents=12)
    assert [row["head"] for row in (plain, half, eight, four)] == ["fp32", "bf16", "int8", "nf4"]
    assert plain["difference"] == plain["low"] == plain["high"] == 0
    assert plain["bytes"] == 2 * half["bytes"] > 3 * eight["bytes"] > 5 * four["bytes"]
    assert abs(eight["difference"]) < abs(four["difference"])
    assert all(row["low"] <= row["difference"] <= row["high"] for row in (half, eight, four))
