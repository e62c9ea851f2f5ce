"""Investment thesis: the upside to the target sets the call, price over earnings the valuation."""

from decimal import Decimal

from lowrank.data.documents.kinds.kind import Field, Kind, Sentence, between, by_sign, choice, company, share
from lowrank.data.facts.fact import Facts

BUY_FROM, SELL_BELOW = Decimal("10.0"), Decimal("-5.0")


def _rated(call: str) -> Sentence:
    """The sentence that states the call, "buy", "hold" or "sell"."""
    return Sentence(
        (
            f"We rate {{company}} a {call} at a price of {{price}} and a target of {{target}}.",
            f"{{company}} is a {call}, with a price of {{price}} and a target of {{target}}.",
            f"Our view on {{company}} is {call}, with a target of {{target}} against a price of {{price}}.",
            f"Our call is {call} for {{company}}, as a price of {{price}} meets a target of {{target}}.",
            f"At a price of {{price}} and with a target of {{target}}, {{company}} is a {call}.",
        ),
        unseen=(
            f"{{company}} gets the verdict {call}: the share price is {{price}}, the price target {{target}}.",
            f"With a price target of {{target}} and a share price of {{price}}, we say {call} on {{company}}.",
        ),
    )


BUY, HOLD, SELL = _rated("buy"), _rated("hold"), _rated("sell")

CHEAP = Sentence(
    (
        "That is a low multiple for a sound business.",
        "The shares look cheap on this measure.",
        "On this measure the shares are inexpensive.",
        "It is an undemanding multiple for such a company.",
        "So little is asked for a growing business.",
    ),
    unseen=("The market pays little for these profits.", "By that yardstick the stock is a bargain."),
)
DEAR = Sentence(
    (
        "That is a full multiple even for a sound business.",
        "The shares look dear on this measure.",
        "On this measure the shares are expensive.",
        "It is a demanding multiple for such a company.",
        "So much is asked even for a growing business.",
    ),
    unseen=("The market pays a lot for these profits.", "By that yardstick the stock is no bargain."),
)


def call(facts: Facts) -> Sentence:
    """By the upside: buy from BUY_FROM per cent, sell below SELL_BELOW, hold between."""
    upside = facts["upside"].number
    return BUY if upside >= BUY_FROM else SELL if upside < SELL_BELOW else HOLD


KIND = Kind(
    name="investment_thesis",
    title="Investment Thesis",
    noun="an investment thesis",
    fields={
        "company": Field("company", "name", company, ("issuer", "stock")),
        "price": Field("price", "usd", between("8.15", "289.95", "0.01"), ("share price", "last price")),
        "target": Field("target", "usd", share("price", "0.8000", "1.5500"), ("price target", "fair value")),
        "upside": Field("upside", "pct", "100 * (target / price - 1)", ("expected return", "potential")),
        "eps": Field(
            "earnings per share", "usd", share("price", "0.0280", "0.1400"), ("profit per share",), also=("EPS",)
        ),
        "multiple": Field("price to earnings", "ratio", "price / eps", ("earnings multiple",)),
        "growth": Field("growth", "pct", between("2.1", "29.9", "0.1"), ("growth rate", "yearly growth")),
        "catalyst": Field(
            "catalyst",
            "text",
            choice("a share buyback|the plant opening|a product launch|a spin-off|margin recovery|new licences"),
            ("trigger",),
        ),
        "risk": Field(
            "key risk",
            "text",
            choice(
                "input costs|weak demand|a patent dispute|regulation|staff turnover|price competition|a delayed launch"
            ),
            ("main risk",),
        ),
    },
    sections={
        "Summary": (
            call,
            Sentence(
                (
                    "This implies upside of {upside}.",
                    "The expected upside is {upside}.",
                    "From here, upside is {upside}.",
                    "The gap between the two is upside of {upside}.",
                    "We therefore see upside of {upside}.",
                ),
                unseen=("The expected return is {upside}.", "That makes for a potential of {upside}."),
            ),
        ),
        "Valuation": (
            Sentence(
                (
                    "With earnings per share of {eps}, price to earnings is {multiple}.",
                    "Price to earnings stands at {multiple} on earnings per share of {eps}.",
                    "Earnings per share of {eps} put price to earnings at {multiple}.",
                    "On earnings per share of {eps}, price to earnings comes to {multiple}.",
                    "Price to earnings is {multiple}, given earnings per share of {eps}.",
                ),
                unseen=(
                    "EPS of {eps} means an earnings multiple of {multiple}.",
                    "The earnings multiple is {multiple} for profit per share of {eps}.",
                ),
            ),
            by_sign("15 - multiple", CHEAP, DEAR),
        ),
        "Catalyst": (
            Sentence(
                (
                    "The main catalyst is {catalyst}, with growth of {growth}.",
                    "We expect growth of {growth}, helped by {catalyst}.",
                    "Thanks to {catalyst}, growth should be {growth}.",
                    "Growth of {growth} is in sight, and the catalyst is {catalyst}.",
                    "Driven by {catalyst}, the company can reach growth of {growth}.",
                ),
                unseen=(
                    "What sets it off is {catalyst}, for a growth rate of {growth}.",
                    "With {catalyst} ahead, we count on yearly growth of {growth}.",
                ),
            ),
        ),
        "Key Risk": (
            Sentence(
                (
                    "The key risk is {risk}.",
                    "Watch {risk}, which could hurt the case.",
                    "The case may fail on {risk}.",
                    "What speaks against it is {risk}.",
                    "Our main concern is {risk}.",
                ),
                unseen=("Holders should fear {risk} most.", "The plan could be upset by {risk}."),
            ),
        ),
    },
)
