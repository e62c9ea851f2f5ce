"""Audit letter: the type of opinion fixes the wording, materiality is a share of income before tax."""

from lowrank.data.facts import Facts
from lowrank.data.kinds.kind import Field, Kind, Sentence, between, choice, company, person, quarter_end

UNQUALIFIED: Sentence = (
    "[In our opinion|On our findings], the statements of {entity} at {year_end} are fairly presented.",
    "We issue an unqualified opinion [on|about] the statements of {entity} at {year_end}.",
    "The statements of {entity} at {year_end} give a true [and fair|and faithful] view.",
)
QUALIFIED: Sentence = (
    "With one exception, the statements of {entity} at {year_end} are [fairly presented|in good order].",
    "We issue a qualified opinion [on|about] the statements of {entity} at {year_end}.",
    "Except for one matter, the statements of {entity} at {year_end} give a [true|fair] view.",
)
ADVERSE: Sentence = (
    "[In our opinion|On our findings], the statements of {entity} at {year_end} are not fairly presented.",
    "We issue an adverse opinion [on|about] the statements of {entity} at {year_end}.",
    "The statements of {entity} at {year_end} do not give a [true|fair] view.",
)
WORDING = {"unqualified": UNQUALIFIED, "qualified": QUALIFIED, "adverse": ADVERSE}


def opinion(facts: Facts) -> Sentence:
    """The fixed wording of the opinion's type."""
    return WORDING[facts["opinion"].value]


KIND = Kind(
    name="audit_letter",
    title="Audit Letter",
    instruction="Write an audit letter in Markdown using only the facts given.",
    fields={
        "entity": Field("entity", "name", company),
        "partner": Field("partner", "person", person),
        "year_end": Field("year end", "date", quarter_end),
        "opinion": Field("opinion", "text", choice("unqualified|qualified|adverse")),
        "pretax": Field("income before tax", "usd_m", between("60.0", "990.0", "0.1")),
        "rate": Field("materiality rate", "rate", between("2.55", "9.95", "0.05")),
        "materiality": Field("materiality", "usd_m", "pretax * rate / 100"),
        "matter": Field(
            "key audit matter",
            "text",
            choice(
                "goodwill|revenue recognition|inventory valuation|loan losses|leases|pension liabilities|tax provisions"
            ),
        ),
    },
    sections={
        "Opinion": (opinion,),
        "Basis": (
            (
                "Income before tax [was|came to] {pretax}, the materiality rate {rate}, and materiality {materiality}.",
                "At a materiality rate of {rate} on income before tax of {pretax}, materiality [is|was] {materiality}.",
                "Materiality is {materiality}, [by|at] a materiality rate of {rate} on income before tax of {pretax}.",
            ),
            (
                "[Errors|Misstatements] above this level could [mislead|sway] a reader.",
                "We [judged|weighed] every error against this level.",
            ),
        ),
        "Key Audit Matter": (
            (
                "The key audit matter [was|is] {matter}, which needed the most judgement.",
                "We [gave|paid] most attention to {matter}.",
                "[Most of our work|Our main effort] concerned {matter}.",
            ),
        ),
        "Responsibilities": (
            (
                "Management [prepares|is responsible for] the statements, and {partner} signs for the auditor.",
                "{partner} [led|directed] the audit, while management prepared the statements.",
                "The statements are the [duty|task] of management, the audit that of {partner}.",
            ),
        ),
    },
)
