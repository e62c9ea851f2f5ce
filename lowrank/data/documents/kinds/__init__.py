"""The ten kinds of document, by name, a TOML file each, and one's own beside them.

docs/documents.md describes the format.
"""

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
_OWN: dict[str, Kind] = {}


def add_kind(kind: Kind) -> None:
    """Makes a kind of one's own known by its name to whatever reads, writes and checks documents.

    Raises ValueError for the name of one of KINDS.
    """
    if kind.name in KINDS:
        raise ValueError(f"a kind of one's own must have another name than one of lowrank's, got {kind.name!r}")
    _OWN[kind.name] = kind


def find_kind(name: str) -> Kind | None:
    """The kind of a name, one of KINDS or one that was added; None for any other."""
    return KINDS.get(name) or _OWN.get(name)
