"""The table of caches: its rows, on few documents."""

import pytest

from lowrank.workflows.cache_loss import compare


@pytest.mark.slow
def test_a_cache_in_fewer_bits_is_compared_document_by_document() -> None:
    plain, eight, four = compare(documents=12)
    assert [row["cache"] for row in (plain, eight, four)] == ["fp32", "int8", "nf4"]
    assert plain["difference"] == 0 and plain["bytes"] > 2 * eight["bytes"] > 2 * four["bytes"]
    assert 0 < abs(eight["difference"]) < abs(four["difference"])
