"""Credit memo: leverage and interest coverage decide the recommendation."""

from decimal import Decimal

from lowrank.data.facts import Facts
from lowrank.data.kinds.kind import Field, Kind, Sentence, between, choice, company, share

MAX_LEVERAGE, MIN_COVERAGE = Decimal("4.00"), Decimal("2.50")

APPROVE: Sentence = (
    "Both ratios meet policy, and we [recommend approval|advise to approve].",
    "We recommend approval, [as|since|because] leverage and coverage are within policy.",
    "The request meets [our|the] credit standards and should be approved.",
)
CONDITIONS: Sentence = (
    "One ratio misses policy, and we [recommend approval with conditions|advise a covenant].",
    "We recommend approval with conditions, [as|since|because] one ratio is outside policy.",
    "The request meets [our|the] credit standards only in part and needs a covenant.",
)
DECLINE: Sentence = (
    "Both ratios miss policy, and we [recommend to decline|advise against the loan].",
    "We recommend to decline, [as|since|because] leverage and coverage are outside policy.",
    "The request fails [our|the] credit standards and should be declined.",
)


def decision(facts: Facts) -> Sentence:
    """By the number of ratios within policy: none, one, two."""
    passed = (facts["leverage"].number <= MAX_LEVERAGE) + (facts["coverage"].number >= MIN_COVERAGE)
    return (DECLINE, CONDITIONS, APPROVE)[passed]


KIND = Kind(
    name="credit_memo",
    title="Credit Memo",
    instruction="Write a credit memo in Markdown using only the facts given.",
    fields={
        "borrower": Field("borrower", "name", company),
        "rating": Field("rating", "text", choice("A|A-|BBB+|BBB|BBB-|BB+|BB|BB-|B+|B")),
        "amount": Field("loan amount", "usd_m", between("5.0", "240.0", "0.1")),
        "term": Field("term in months", "count", between("13", "119", "1"), ("term",)),
        "debt": Field("total debt", "usd_m", between("60.0", "990.0", "0.1")),
        "ebitda": Field("EBITDA", "usd_m", share("debt", "0.1600", "0.6000")),
        "interest": Field("interest", "usd_m", share("ebitda", "0.1500", "0.6500")),
        "leverage": Field("leverage", "ratio", "debt / ebitda"),
        "coverage": Field("coverage", "ratio", "ebitda / interest"),
    },
    sections={
        "Borrower": (
            (
                "{borrower}, rated {rating}, [requests|seeks|asks for] a loan amount of {amount}.",
                "The borrower is {borrower}, [with a rating of|rated] {rating}, and the loan amount is {amount}.",
                "{borrower} [holds|has] a rating of {rating} and seeks a loan amount of {amount}.",
            ),
            (
                "The [requested|proposed] term is {term} months.",
                "[Repayment is due|The loan would run] over a term of {term} months.",
                "The loan [has|carries] a term of {term} months.",
            ),
        ),
        "Financial Position": (
            (
                "Total debt [is|stands at] {debt}, EBITDA {ebitda} and interest {interest}.",
                "The borrower [has|carries] total debt of {debt}, with EBITDA of {ebitda} and interest of {interest}.",
                "EBITDA of {ebitda} [compares with|stands against] total debt of {debt} and interest of {interest}.",
            ),
            (
                "This [gives|means] leverage of {leverage} and coverage of {coverage}.",
                "Leverage is [therefore|thus] {leverage} and coverage {coverage}.",
                "Coverage [is|stands at] {coverage} and leverage is {leverage}.",
            ),
            (
                "The two ratios [set|weigh|hold] debt and its cost against earnings.",
                "Debt and its cost are [both|thus] measured against earnings.",
            ),
        ),
        "Recommendation": (decision,),
    },
)
