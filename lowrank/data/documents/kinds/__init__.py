"""The ten kinds of document, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from lowrank.data.documents.kinds import (
    aml_sar_narrative,
    audit_letter,
    covenant_certificate,
    credit_memo,
    earnings_summary,
    fund_fact_sheet,
    investment_thesis,
    invoice_statement,
    mdna_section,
    risk_disclosure,
)
from lowrank.data.documents.kinds.kind import Kind

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        module.KIND.name: module.KIND
        for module in (
            earnings_summary,
            mdna_section,
            risk_disclosure,
            credit_memo,
            covenant_certificate,
            invoice_statement,
            aml_sar_narrative,
            investment_thesis,
            fund_fact_sheet,
            audit_letter,
        )
    }
)
