"""Covenant certificate: total debt over EBITDA against its limit; the sign of the headroom is the conclusion."""

from lowrank.data.documents.kinds.kind import (
    Field,
    Kind,
    Sentence,
    between,
    by_sign,
    company,
    person,
    quarter_end,
    share,
)

UNDER = Sentence(
    (
        "The limit is {max_leverage}, leaving headroom of {headroom}.",
        "Under the limit of {max_leverage}, headroom is a positive {headroom}.",
        "Headroom is {headroom} below the limit of {max_leverage}.",
        "With a limit of {max_leverage}, there is headroom of {headroom}.",
        "Against the limit of {max_leverage}, the test leaves headroom of {headroom}.",
    ),
    unseen=(
        "Maximum leverage is {max_leverage}, so there is a cushion of {headroom}.",
        "The covenant limit of {max_leverage} allows for covenant headroom of {headroom}.",
    ),
)
OVER = Sentence(
    (
        "The limit is {max_leverage}, giving negative headroom of {headroom}.",
        "Over the limit of {max_leverage}, headroom is negative at {headroom}.",
        "Headroom is {headroom} against the limit of {max_leverage}.",
        "With a limit of {max_leverage}, there is negative headroom of {headroom}.",
        "Against the limit of {max_leverage}, the test shows headroom of {headroom}.",
    ),
    unseen=(
        "Maximum leverage is {max_leverage}, so the cushion is negative at {headroom}.",
        "The covenant limit of {max_leverage} is passed, with covenant headroom of {headroom}.",
    ),
)
MET = Sentence(
    (
        "The company is in compliance with the covenant.",
        "The covenant is met, and the company is in compliance.",
        "Accordingly, the company is in compliance.",
        "We find the company in compliance.",
        "The test is passed, so the company is in compliance.",
    ),
    unseen=("The terms are kept: the company is in compliance.", "As of that day the company stands in compliance."),
)
BREACHED = Sentence(
    (
        "The company is in breach of the covenant.",
        "The covenant is not met, and the company is in breach.",
        "Accordingly, the company is in breach.",
        "We find the company in breach.",
        "The test is failed, so the company is in breach.",
    ),
    unseen=("The terms are not kept: the company is in breach.", "As of that day the company stands in breach."),
)

KIND = Kind(
    name="covenant_certificate",
    title="Covenant Compliance Certificate",
    noun="a covenant compliance certificate",
    fields={
        "company": Field("company", "name", company, ("borrower", "obligor")),
        "officer": Field("officer", "person", person, ("certifying officer", "signatory")),
        "test_date": Field("test date", "date", quarter_end, ("date of test",)),
        "total_debt": Field("total debt", "usd_m", between("60.0", "990.0", "0.1"), ("gross debt", "borrowings")),
        "ebitda": Field("EBITDA", "usd_m", share("total_debt", "0.1800", "0.6000"), ("adjusted EBITDA",)),
        "leverage": Field("leverage", "ratio", "total_debt / ebitda", ("leverage ratio", "gearing")),
        "max_leverage": Field(
            "limit", "ratio", between("2.55", "5.95", "0.05"), ("maximum leverage", "covenant limit")
        ),
        "headroom": Field("headroom", "ratio", "max_leverage - leverage", ("covenant headroom", "cushion")),
    },
    sections={
        "Certification": (
            Sentence(
                (
                    "I, {officer}, an officer of {company}, certify the figures below as of {test_date}.",
                    "{officer}, acting for {company}, certifies this test as of {test_date}.",
                    "As of {test_date}, {officer} confirms the following for {company}.",
                    "On behalf of {company}, {officer} certifies its position at {test_date}.",
                    "This certificate of {company} is given by {officer} as of {test_date}.",
                ),
                unseen=(
                    "{officer} signs for {company} and vouches for the position on {test_date}.",
                    "The undersigned, {officer}, attests to the figures of {company} at {test_date}.",
                ),
            ),
        ),
        "Calculation": (
            Sentence(
                (
                    "Total debt was {total_debt} and EBITDA {ebitda}, so leverage was {leverage}.",
                    "With total debt of {total_debt} and EBITDA of {ebitda}, leverage came to {leverage}.",
                    "EBITDA of {ebitda} and total debt of {total_debt} give leverage of {leverage}.",
                    "Leverage is {leverage}, from total debt of {total_debt} and EBITDA of {ebitda}.",
                    "On EBITDA of {ebitda}, total debt of {total_debt} means leverage of {leverage}.",
                ),
                unseen=(
                    "Borrowings of {total_debt} on EBITDA of {ebitda} make a leverage ratio of {leverage}.",
                    "Gearing is {leverage}, as gross debt is {total_debt} and adjusted EBITDA {ebitda}.",
                ),
            ),
            Sentence(
                (
                    "The ratio is defined as debt divided by earnings.",
                    "The ratio sets debt against earnings, as the agreement requires.",
                    "It is measured in the way that the agreement lays down.",
                    "All amounts come from the accounts of the company.",
                    "Debt over earnings is the measure that was agreed.",
                ),
                unseen=("The sums were drawn from the ledgers.", "Lenders and company agreed on this measure."),
            ),
        ),
        "Conclusion": (by_sign("headroom", UNDER, OVER), by_sign("headroom", MET, BREACHED)),
    },
)
