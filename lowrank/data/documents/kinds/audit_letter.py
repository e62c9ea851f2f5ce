"""Audit letter: the type of opinion fixes the wording, materiality is a share of income before tax."""

from lowrank.data.documents.kinds.kind import Field, Kind, Sentence, between, choice, company, person, quarter_end
from lowrank.data.facts.fact import Facts

UNQUALIFIED = Sentence(
    (
        "In our opinion, the statements of {entity} at {year_end} are fairly presented.",
        "We issue an unqualified opinion on the statements of {entity} at {year_end}.",
        "The statements of {entity} at {year_end} give a true and fair view.",
        "At {year_end}, the statements of {entity} are fair in every respect.",
        "Our opinion on the statements of {entity} at {year_end} is unqualified.",
    ),
    unseen=(
        "We sign the accounts of {entity} at {year_end} without reserve.",
        "The accounts of {entity} at {year_end} are clean, and our opinion is unqualified.",
    ),
)
QUALIFIED = Sentence(
    (
        "With one exception, the statements of {entity} at {year_end} are fairly presented.",
        "We issue a qualified opinion on the statements of {entity} at {year_end}.",
        "Except for one matter, the statements of {entity} at {year_end} give a true view.",
        "At {year_end}, the statements of {entity} are fair but for one point.",
        "Our opinion on the statements of {entity} at {year_end} is qualified.",
    ),
    unseen=(
        "We sign the accounts of {entity} at {year_end} with one reserve.",
        "The accounts of {entity} at {year_end} have one flaw, and our opinion is qualified.",
    ),
)
ADVERSE = Sentence(
    (
        "In our opinion, the statements of {entity} at {year_end} are not fairly presented.",
        "We issue an adverse opinion on the statements of {entity} at {year_end}.",
        "The statements of {entity} at {year_end} do not give a true and fair view.",
        "At {year_end}, the statements of {entity} are not fair.",
        "Our opinion on the statements of {entity} at {year_end} is adverse.",
    ),
    unseen=(
        "We cannot approve the accounts of {entity} at {year_end}.",
        "The accounts of {entity} at {year_end} mislead, and our opinion is adverse.",
    ),
)
WORDING = {"unqualified": UNQUALIFIED, "qualified": QUALIFIED, "adverse": ADVERSE}


def opinion(facts: Facts) -> Sentence:
    """The fixed wording of the opinion's type."""
    return WORDING[facts["opinion"].value]


KIND = Kind(
    name="audit_letter",
    title="Audit Letter",
    noun="an audit letter",
    fields={
        "entity": Field("entity", "name", company, ("audited company", "client")),
        "partner": Field("partner", "person", person, ("signing partner", "lead auditor")),
        "year_end": Field("year end", "date", quarter_end, ("balance sheet date",)),
        "opinion": Field("opinion", "text", choice("unqualified|qualified|adverse"), ("type of opinion",)),
        "pretax": Field(
            "income before tax", "usd_m", between("60.0", "990.0", "0.1"), ("pre-tax income", "profit before tax")
        ),
        "rate": Field("materiality rate", "rate", between("2.55", "9.95", "0.05"), ("percentage applied",)),
        "materiality": Field("materiality", "usd_m", "pretax * rate / 100", ("materiality level", "error threshold")),
        "matter": Field(
            "key audit matter",
            "text",
            choice(
                "goodwill|revenue recognition|inventory valuation|loan losses|leases|pension liabilities|tax provisions"
            ),
            ("main audit matter",),
        ),
    },
    sections={
        "Opinion": (opinion,),
        "Basis": (
            Sentence(
                (
                    "Income before tax was {pretax}, the materiality rate {rate}, and materiality {materiality}.",
                    "At a materiality rate of {rate} on income before tax of {pretax}, materiality is {materiality}.",
                    "Materiality is {materiality}, by a materiality rate of {rate} on income before tax of {pretax}.",
                    "Income before tax of {pretax} and a materiality rate of {rate} put materiality at {materiality}.",
                    "We set materiality at {materiality}, with a materiality rate of {rate} and income before tax of "
                    "{pretax}.",
                ),
                unseen=(
                    "The error threshold is {materiality}, the percentage applied {rate} and pre-tax income {pretax}.",
                    "Profit before tax is {pretax}, which at a materiality rate of {rate} makes a materiality level of "
                    "{materiality}.",
                ),
            ),
            Sentence(
                (
                    "Misstatements above this level could mislead a reader.",
                    "We judged every error against this level.",
                    "Smaller errors were not pursued.",
                    "Our tests were planned around this amount.",
                    "Anything larger would matter to a reader.",
                ),
                unseen=("Lesser slips were let pass.", "It guided how much we looked at."),
            ),
        ),
        "Key Audit Matter": (
            Sentence(
                (
                    "The key audit matter was {matter}, which needed the most judgement.",
                    "We paid most attention to {matter}.",
                    "Most of our work concerned {matter}.",
                    "The hardest part of the audit was {matter}.",
                    "What needed most care was {matter}.",
                ),
                unseen=("Much of our time went into {matter}.", "The audit team dwelt longest on {matter}."),
            ),
        ),
        "Responsibilities": (
            Sentence(
                (
                    "Management prepares the statements, and {partner} signs for the auditor.",
                    "{partner} led the audit, while management prepared the statements.",
                    "The statements are the duty of management, the audit that of {partner}.",
                    "Management answers for the statements and {partner} for the audit.",
                    "The audit was directed by {partner}, and the statements were drawn up by management.",
                ),
                unseen=(
                    "Drawing up the accounts is up to management, and auditing them to {partner}.",
                    "{partner} vouches for the audit, and management for the accounts.",
                ),
            ),
        ),
    },
)
