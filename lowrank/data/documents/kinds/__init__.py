"""The ten kinds of document, by name: a TOML file each (docs/documents.md describes the format)."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from ..kind import Kind
from ..kind_file import read_kind

# In the order in which the documents of a set take turns.
NAMES = (
    "earnings_summary",
    "mdna_section",
    "risk_disclosure",
    "credit_memo",
    "covenant_certificate",
    "invoice_statement",
    "aml_sar_narrative",
    "investment_thesis",
    "fund_fact_sheet",
    "audit_letter",
)

KINDS: Mapping[str, Kind] = MappingProxyType(
    {name: read_kind(Path(__file__).with_name(f"{name}.toml")) for name in NAMES}
)
