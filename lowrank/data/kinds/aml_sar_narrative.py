"""Suspicious activity narrative: three deposits, each below the reporting threshold, together above it."""

from random import Random

from lowrank.data.facts import Facts
from lowrank.data.kinds.kind import Field, Kind, between, day, days_after, person, share
from lowrank.data.names import Names


def account(rng: Random, names: Names, above: Facts) -> str:
    """`account 4471`."""
    return f"account {rng.randint(1001, 9999)}"


KIND = Kind(
    name="aml_sar_narrative",
    title="Suspicious Activity Narrative",
    instruction="Write a suspicious activity narrative in Markdown using only the facts given.",
    fields={
        "subject": Field("subject", "person", person),
        "account": Field("account", "text", account),
        "first_date": Field("from", "date", day),
        "last_date": Field("to", "date", days_after("first_date", 2, 16)),
        "threshold": Field("threshold", "usd", between("2500.00", "12000.00", "250.00")),
        "first": Field("first deposit", "usd", share("threshold", "0.7000", "0.9900")),
        "second": Field("second deposit", "usd", share("threshold", "0.7000", "0.9900")),
        "third": Field("third deposit", "usd", share("threshold", "0.7000", "0.9900"), ("third of",)),
        "total": Field("total", "usd", "first + second + third"),
    },
    sections={
        "Subject": (
            (
                "The subject, {subject}, [holds|owns|controls] {account}.",
                "This report [concerns|covers] {subject}, holder of {account}.",
                "{subject} is the [holder|owner] of {account}.",
            ),
        ),
        "Activity": (
            (
                "Between {first_date} and {last_date}, cash was [deposited|paid in] three times.",
                "Three cash deposits were [made|recorded|seen] from {first_date} to {last_date}.",
                "[Cash|Money] [arrived|was received] three times from {first_date} to {last_date}.",
            ),
            (
                "The first deposit [was|came to] {first}, the second deposit {second} and the third deposit {third}.",
                "We saw a first deposit of {first}, [then|next] a second deposit of {second} and a third of {third}.",
                "A first deposit of {first} [preceded|led to] a second deposit of {second} and a third of {third}.",
            ),
        ),
        "Basis": (
            (
                "Each is below the threshold of {threshold}, yet the total [is|comes to|reaches] {total}.",
                "The total [is|comes to|reaches] {total}, though each is below the threshold of {threshold}.",
            ),
        ),
        "Action": (
            (
                "The pattern [suggests|points to] structuring, and the account is under review.",
                "We [suspect|infer] structuring and have filed this report.",
                "The bank [filed|submitted] this report and monitors the account.",
            ),
        ),
    },
)
