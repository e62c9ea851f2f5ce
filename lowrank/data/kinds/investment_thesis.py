"""Investment thesis: the upside to the target sets the call, price over earnings the valuation."""

from decimal import Decimal

from lowrank.data.facts import Facts
from lowrank.data.kinds.kind import Field, Kind, Sentence, between, by_sign, choice, company, share

BUY_FROM, SELL_BELOW = Decimal("10.0"), Decimal("-5.0")

BUY: Sentence = (
    "We rate {company} a [buy|strong buy] at a price of {price} and a target of {target}.",
    "{company} is a buy, [with|at] a price of {price} and a target of {target}.",
    "Our [call|view] on {company} is buy, with a target of {target} against a price of {price}.",
)
HOLD: Sentence = (
    "We rate {company} a hold [at|with] a price of {price} and a target of {target}.",
    "{company} is a hold, [with|at] a price of {price} and a target of {target}.",
    "Our [call|view] on {company} is hold, with a target of {target} against a price of {price}.",
)
SELL: Sentence = (
    "We rate {company} a [sell|clear sell] at a price of {price} and a target of {target}.",
    "{company} is a sell, [with|at] a price of {price} and a target of {target}.",
    "Our [call|view] on {company} is sell, with a target of {target} against a price of {price}.",
)

CHEAP: Sentence = (
    "That is [a low|an undemanding] multiple for a [sound|growing] business.",
    "The shares look [cheap|inexpensive] on this measure.",
)
DEAR: Sentence = (
    "That is [a full|a demanding] multiple even for a [sound|growing] business.",
    "The shares look [dear|expensive] on this measure.",
)


def call(facts: Facts) -> Sentence:
    """By the upside: buy from BUY_FROM per cent, sell below SELL_BELOW, hold between."""
    upside = facts["upside"].number
    return BUY if upside >= BUY_FROM else SELL if upside < SELL_BELOW else HOLD


KIND = Kind(
    name="investment_thesis",
    title="Investment Thesis",
    instruction="Write an investment thesis in Markdown using only the facts given.",
    fields={
        "company": Field("company", "name", company),
        "price": Field("price", "usd", between("8.15", "289.95", "0.01")),
        "target": Field("target", "usd", share("price", "0.8000", "1.5500")),
        "upside": Field("upside", "pct", "100 * (target / price - 1)"),
        "eps": Field("earnings per share", "usd", share("price", "0.0280", "0.1400"), ("EPS",)),
        "multiple": Field("price to earnings", "ratio", "price / eps"),
        "growth": Field("growth", "pct", between("2.1", "29.9", "0.1")),
        "catalyst": Field(
            "catalyst",
            "text",
            choice("a share buyback|the plant opening|a product launch|a spin-off|margin recovery|new licences"),
        ),
        "risk": Field(
            "key risk",
            "text",
            choice(
                "input costs|weak demand|a patent dispute|regulation|staff turnover|price competition|a delayed launch"
            ),
        ),
    },
    sections={
        "Summary": (
            call,
            (
                "This [implies|means|gives] upside of {upside}.",
                "The [implied|resulting|expected] upside is {upside}.",
            ),
        ),
        "Valuation": (
            (
                "With earnings per share of {eps}, price to earnings [is|stands at|comes to] {multiple}.",
                "Price to earnings [is|stands at|comes to] {multiple} on earnings per share of {eps}.",
            ),
            by_sign("15 - multiple", CHEAP, DEAR),
        ),
        "Catalyst": (
            (
                "The [main|next] catalyst is {catalyst}, with growth of {growth}.",
                "We [expect|forecast] growth of {growth}, helped by {catalyst}.",
                "[Thanks to|Driven by] {catalyst}, growth should be {growth}.",
            ),
        ),
        "Key Risk": (
            (
                "The [key|main] risk is {risk}.",
                "[Watch|Beware of] {risk}, which could hurt the case.",
                "The case [could|may] fail on {risk}.",
            ),
        ),
    },
)
