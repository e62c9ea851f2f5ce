"""Credit memo: leverage and interest coverage decide the recommendation."""

from decimal import Decimal

from lowrank.data.documents.kinds.kind import Field, Kind, Sentence, between, choice, company, share
from lowrank.data.facts.fact import Facts

MAX_LEVERAGE, MIN_COVERAGE = Decimal("4.00"), Decimal("2.50")

APPROVE = Sentence(
    (
        "Both ratios meet policy, and we recommend approval.",
        "We recommend approval, since leverage and coverage are within policy.",
        "The request meets our credit standards and should be approved.",
        "As both ratios are sound, we advise to approve.",
        "Leverage and coverage pass our tests, so approval is advised.",
    ),
    unseen=("Both tests are passed, and the desk supports the loan.", "We see no obstacle and favour approval."),
)
CONDITIONS = Sentence(
    (
        "One ratio misses policy, and we recommend approval with conditions.",
        "We recommend approval with conditions, since one ratio is outside policy.",
        "The request meets our credit standards only in part and needs a covenant.",
        "As one ratio is weak, we advise a covenant.",
        "One of our two tests is failed, so conditions are advised.",
    ),
    unseen=(
        "One test is passed and one is not, so the desk asks for conditions.",
        "We favour approval only with a covenant.",
    ),
)
DECLINE = Sentence(
    (
        "Both ratios miss policy, and we recommend to decline.",
        "We recommend to decline, since leverage and coverage are outside policy.",
        "The request fails our credit standards and should be declined.",
        "As both ratios are weak, we advise against the loan.",
        "Leverage and coverage fail our tests, so a refusal is advised.",
    ),
    unseen=("Both tests are failed, and the desk opposes the loan.", "We see too much risk and favour a refusal."),
)


def decision(facts: Facts) -> Sentence:
    """By the number of ratios within policy: none, one, two."""
    passed = (facts["leverage"].number <= MAX_LEVERAGE) + (facts["coverage"].number >= MIN_COVERAGE)
    return (DECLINE, CONDITIONS, APPROVE)[passed]


KIND = Kind(
    name="credit_memo",
    title="Credit Memo",
    noun="a credit memo",
    fields={
        "borrower": Field("borrower", "name", company, ("applicant", "obligor")),
        "rating": Field("rating", "text", choice("A|A-|BBB+|BBB|BBB-|BB+|BB|BB-|B+|B"), ("credit grade",)),
        "amount": Field(
            "loan amount", "usd_m", between("5.0", "240.0", "0.1"), ("facility amount", "requested amount")
        ),
        "term": Field(
            "term in months", "count", between("13", "119", "1"), ("tenor in months",), also=("term", "tenor")
        ),
        "debt": Field("total debt", "usd_m", between("60.0", "990.0", "0.1"), ("gross debt", "borrowings")),
        "ebitda": Field("EBITDA", "usd_m", share("debt", "0.1600", "0.6000"), ("adjusted EBITDA",)),
        "interest": Field("interest", "usd_m", share("ebitda", "0.1500", "0.6500"), ("interest cost", "finance cost")),
        "leverage": Field("leverage", "ratio", "debt / ebitda", ("leverage ratio", "gearing")),
        "coverage": Field("coverage", "ratio", "ebitda / interest", ("interest coverage", "coverage ratio")),
    },
    sections={
        "Borrower": (
            Sentence(
                (
                    "{borrower}, rated {rating}, requests a loan amount of {amount}.",
                    "The borrower is {borrower}, rated {rating}, and the loan amount is {amount}.",
                    "{borrower} holds a rating of {rating} and seeks a loan amount of {amount}.",
                    "A loan amount of {amount} is asked for by {borrower}, rated {rating}.",
                    "With a rating of {rating}, {borrower} applies for a loan amount of {amount}.",
                ),
                unseen=(
                    "{borrower}, of credit grade {rating}, wants a facility amount of {amount}.",
                    "The applicant, {borrower} ({rating}), puts the requested amount at {amount}.",
                ),
            ),
            Sentence(
                (
                    "The proposed term is {term} months.",
                    "Repayment is due over a term of {term} months.",
                    "The loan has a term of {term} months.",
                    "A term of {term} months is requested.",
                    "The loan would run for a term of {term} months.",
                ),
                unseen=(
                    "The tenor would be {term} months.",
                    "It is to be repaid in full after a tenor of {term} months.",
                ),
            ),
        ),
        "Financial Position": (
            Sentence(
                (
                    "Total debt is {debt}, EBITDA {ebitda} and interest {interest}.",
                    "The borrower has total debt of {debt}, with EBITDA of {ebitda} and interest of {interest}.",
                    "EBITDA of {ebitda} compares with total debt of {debt} and interest of {interest}.",
                    "Interest is {interest} and total debt {debt}, against EBITDA of {ebitda}.",
                    "On total debt of {debt}, interest is {interest} and EBITDA {ebitda}.",
                ),
                unseen=(
                    "Borrowings are {debt}, the interest cost is {interest} and EBITDA is {ebitda}.",
                    "EBITDA amounts to {ebitda}, gross debt to {debt} and finance cost to {interest}.",
                ),
            ),
            Sentence(
                (
                    "This gives leverage of {leverage} and coverage of {coverage}.",
                    "Leverage is therefore {leverage} and coverage {coverage}.",
                    "Coverage stands at {coverage} and leverage is {leverage}.",
                    "The result is leverage of {leverage}, with coverage of {coverage}.",
                    "We compute coverage of {coverage} and leverage of {leverage}.",
                ),
                unseen=(
                    "Gearing works out at {leverage} and interest coverage at {coverage}.",
                    "The coverage ratio is {coverage}, the leverage ratio {leverage}.",
                ),
            ),
        ),
        "Recommendation": (decision,),
    },
)
