"""Suspicious activity narrative: three deposits, each below the reporting threshold, together above it."""

from random import Random

from lowrank.data.documents.kinds.kind import Field, Kind, Sentence, between, day, days_after, person, share
from lowrank.data.documents.names import Names
from lowrank.data.facts.fact import Facts


def account(rng: Random, names: Names, above: Facts) -> str:
    """`account 4471`."""
    return f"account {rng.randint(1001, 9999)}"


KIND = Kind(
    name="aml_sar_narrative",
    title="Suspicious Activity Narrative",
    noun="a suspicious activity narrative",
    fields={
        "subject": Field("subject", "person", person, ("account holder", "suspect")),
        "account": Field("account", "text", account, ("bank account",)),
        "first_date": Field("from", "date", day, ("first date", "start")),
        "last_date": Field("to", "date", days_after("first_date", 2, 16), ("last date", "end")),
        "threshold": Field("threshold", "usd", between("2500.00", "12000.00", "100.00"), ("reporting limit",)),
        "first": Field("first deposit", "usd", share("threshold", "0.6000", "0.9900"), ("deposit one",)),
        "second": Field("second deposit", "usd", share("threshold", "0.6000", "0.9900"), ("deposit two",)),
        "third": Field(
            "third deposit", "usd", share("threshold", "0.6000", "0.9900"), ("deposit three",), also=("third of",)
        ),
        "total": Field("total", "usd", "first + second + third", ("sum", "combined amount")),
    },
    sections={
        "Subject": (
            Sentence(
                (
                    "The subject, {subject}, holds {account}.",
                    "This report concerns {subject}, holder of {account}.",
                    "{subject} is the owner of {account}.",
                    "We report on {subject}, who controls {account}.",
                    "The holder of {account} is {subject}.",
                ),
                unseen=("Our suspect is {subject}, in whose name {account} runs.", "{account} belongs to {subject}."),
            ),
        ),
        "Activity": (
            Sentence(
                (
                    "Between {first_date} and {last_date}, cash was paid in three times.",
                    "Three cash deposits were made from {first_date} to {last_date}.",
                    "Money arrived three times from {first_date} to {last_date}.",
                    "From {first_date} to {last_date} we saw three cash deposits.",
                    "Three times, from {first_date} until {last_date}, cash was deposited.",
                ),
                unseen=(
                    "Cash came in on three occasions, the first on {first_date}, the last on {last_date}.",
                    "Starting on {first_date} and ending on {last_date}, notes were handed in three times.",
                ),
            ),
            Sentence(
                (
                    "The first deposit was {first}, the second deposit {second} and the third deposit {third}.",
                    "We saw a first deposit of {first}, a second deposit of {second} and a third of {third}.",
                    "A first deposit of {first} preceded a second deposit of {second} and a third of {third}.",
                    "After a first deposit of {first} came a second deposit of {second} and a third of {third}.",
                    "They were a first deposit of {first}, a second deposit of {second} and a third of {third}.",
                ),
                unseen=(
                    "Deposit one was {first}, deposit two {second} and deposit three {third}.",
                    "We noted a first deposit of {first}, then a second deposit of {second} and a third of {third}.",
                ),
            ),
        ),
        "Basis": (
            Sentence(
                (
                    "Each is below the threshold of {threshold}, yet the total comes to {total}.",
                    "The total is {total}, though each is below the threshold of {threshold}.",
                    "None reaches the threshold of {threshold}, but the total is {total}.",
                    "Kept under the threshold of {threshold} one by one, they make a total of {total}.",
                    "With a threshold of {threshold}, each stays below it while the total reaches {total}.",
                ),
                unseen=(
                    "Every one avoids the reporting limit of {threshold}, while the sum is {total}.",
                    "The combined amount is {total}, and no single one meets the reporting limit of {threshold}.",
                ),
            ),
        ),
        "Action": (
            Sentence(
                (
                    "The pattern suggests structuring, and the account is under review.",
                    "We suspect structuring and have filed this report.",
                    "The bank filed this report and monitors the account.",
                    "Structuring is likely, so the account was flagged.",
                    "The case points to structuring and was passed on to the authorities.",
                ),
                unseen=(
                    "The account was frozen and the case handed over.",
                    "Our staff infer structuring and keep watch.",
                ),
            ),
        ),
    },
)
