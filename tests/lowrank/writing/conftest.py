"""A record of a file, and texts about it."""

from pathlib import Path

import pytest

from lowrank.data.documents.facts_record import FactsRecord

TABLE = """company,period,revenue,prior revenue,gross margin,main driver
Aldane Foods Ltd,Q3 2024,$412.5 million,$384.3 million,41.2%,new stores
Bellmere plc,Q3 2024,$5.5 million,$5.5 million,12.5%,price rises
"""


@pytest.fixture
def subject(tmp_path: Path) -> FactsRecord:
    """The first of two records of a CSV."""
    path = tmp_path / "companies.csv"
    path.write_text(TABLE, encoding="utf-8")
    return FactsRecord.read(path, "earnings_summary", record="1")
