"""Risk disclosure: what a rise of rates costs on floating debt; from one per cent of all debt it is material."""

from lowrank.data.documents.kinds.kind import Field, Kind, Sentence, between, by_sign, choice, company, period

LARGE = Sentence(
    (
        "Management regards this exposure as material and has adopted {mitigation}.",
        "As the exposure is material, the board approved {mitigation}.",
        "To contain this material exposure, the company uses {mitigation}.",
        "The exposure is material, and the answer to it is {mitigation}.",
        "Since the cost would be material, the company turns to {mitigation}.",
    ),
    unseen=(
        "The board ranks the cost as material and has set up {mitigation}.",
        "Being material, the exposure is met with {mitigation}.",
    ),
)
SMALL = Sentence(
    (
        "Management regards this exposure as modest and relies on {mitigation}.",
        "As the exposure is modest, the board finds {mitigation} sufficient.",
        "To contain this modest exposure, the company uses {mitigation}.",
        "The exposure is modest, and the answer to it is {mitigation}.",
        "Since the cost would be modest, the company stays with {mitigation}.",
    ),
    unseen=(
        "The board ranks the cost as modest and trusts in {mitigation}.",
        "Being modest, the exposure is met with {mitigation}.",
    ),
)

KIND = Kind(
    name="risk_disclosure",
    title="Risk Disclosure",
    noun="a risk disclosure",
    fields={
        "company": Field("company", "name", company, ("issuer", "registrant")),
        "period": Field("period", "period", period, ("reporting period",)),
        "first_risk": Field(
            "first risk",
            "text",
            choice("rising interest rates|tighter credit|refinancing needs|a rate shock"),
            ("risk one",),
        ),
        "second_risk": Field(
            "second risk",
            "text",
            choice("supplier failure|currency swings|data breaches|customer losses|new tariffs|labour shortages"),
            ("risk two",),
        ),
        "debt": Field("total debt", "usd_m", between("90.0", "990.0", "0.1"), ("gross debt", "borrowings")),
        "floating_share": Field(
            "floating share", "pct", between("15.0", "95.0", "0.1"), ("variable share", "floating-rate part")
        ),
        "rate_shock": Field("rate rise", "bps", between("55", "395", "5"), ("rate increase", "rise in rates")),
        "exposure": Field(
            "annual cost", "usd_m", "debt * floating_share / 100 * rate_shock / 10000", ("yearly cost", "added cost")
        ),
        "mitigation": Field(
            "mitigation",
            "text",
            choice(
                "interest rate swaps|a fixed rate policy|early repayment|a cash reserve|rate caps|staggered maturities"
            ),
            ("response", "countermeasure"),
        ),
    },
    sections={
        "Risk": (
            Sentence(
                (
                    "In {period}, {company} faced {first_risk} and {second_risk}.",
                    "The main risks of {company} in {period} were {first_risk} and {second_risk}.",
                    "For {period}, {company} names two risks, {first_risk} and {second_risk}.",
                    "{company} was exposed to {first_risk} and {second_risk} in {period}.",
                    "Two risks weighed on {company} in {period}, {first_risk} and {second_risk}.",
                ),
                unseen=(
                    "Over {period}, the chief concerns of {company} were {first_risk} and {second_risk}.",
                    "{company} counts {first_risk} and {second_risk} among its risks for {period}.",
                ),
            ),
        ),
        "Exposure": (
            Sentence(
                (
                    "Total debt is {debt}, with a floating share of {floating_share}.",
                    "The floating share is {floating_share} of total debt of {debt}.",
                    "The company carries total debt of {debt} and a floating share of {floating_share}.",
                    "Of total debt of {debt}, the floating share is {floating_share}.",
                    "With total debt at {debt}, the floating share stands at {floating_share}.",
                ),
                unseen=(
                    "Borrowings add up to {debt}, and the variable share is {floating_share}.",
                    "Gross debt amounts to {debt}, its floating-rate part to {floating_share}.",
                ),
            ),
            Sentence(
                (
                    "A rate rise of {rate_shock} would bring an annual cost of {exposure}.",
                    "After a rate rise of {rate_shock}, the annual cost would be {exposure}.",
                    "The annual cost would be {exposure} in a rate rise of {rate_shock}.",
                    "If rates move, a rate rise of {rate_shock} means an annual cost of {exposure}.",
                    "Under a rate rise of {rate_shock}, the company bears an annual cost of {exposure}.",
                ),
                unseen=(
                    "A rate increase of {rate_shock} would lead to a yearly cost of {exposure}.",
                    "The added cost is put at {exposure} for a rise in rates of {rate_shock}.",
                ),
            ),
            Sentence(
                (
                    "This is because floating debt reprices when rates move.",
                    "Fixed debt is not affected, as its cost does not move.",
                    "Only the floating part follows the market.",
                    "Debt at fixed rates is left out of this figure.",
                    "The estimate assumes that nothing is repaid early.",
                ),
                unseen=("Loans at a set rate stay as they are.", "The sum holds for a full year at the new level."),
            ),
        ),
        "Mitigation": (by_sign("100 * exposure - debt", LARGE, SMALL),),
    },
)
