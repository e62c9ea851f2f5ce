"""Risk disclosure: what a rise of rates costs on floating debt; from one per cent of all debt it is material."""

from lowrank.data.kinds.kind import Field, Kind, Sentence, between, by_sign, choice, company, period

LARGE: Sentence = (
    "Management [regards|considers] this exposure as material and has adopted {mitigation}.",
    "As the exposure is material, the board [approved|adopted] {mitigation}.",
    "To [contain|limit] this material exposure, the company uses {mitigation}.",
)
SMALL: Sentence = (
    "Management [regards|considers] this exposure as modest and relies on {mitigation}.",
    "As the exposure is modest, the board [keeps|maintains] {mitigation}.",
    "To [contain|limit] this modest exposure, the company uses {mitigation}.",
)

KIND = Kind(
    name="risk_disclosure",
    title="Risk Disclosure",
    instruction="Write a risk disclosure in Markdown using only the facts given.",
    fields={
        "company": Field("company", "name", company),
        "period": Field("period", "period", period),
        "first_risk": Field(
            "first risk", "text", choice("rising interest rates|tighter credit|refinancing needs|a rate shock")
        ),
        "second_risk": Field(
            "second risk",
            "text",
            choice("supplier failure|currency swings|data breaches|customer losses|new tariffs|labour shortages"),
        ),
        "debt": Field("total debt", "usd_m", between("90.0", "990.0", "0.1")),
        "floating_share": Field("floating share", "pct", between("15.0", "95.0", "0.1")),
        "rate_shock": Field("rate rise", "bps", between("55", "395", "5")),
        "exposure": Field("annual cost", "usd_m", "debt * floating_share / 100 * rate_shock / 10000"),
        "mitigation": Field(
            "mitigation",
            "text",
            choice(
                "interest rate swaps|a fixed rate policy|early repayment|a cash reserve|rate caps|staggered maturities"
            ),
        ),
    },
    sections={
        "Risk": (
            (
                "In {period}, {company} [faced|was exposed to] {first_risk} and {second_risk}.",
                "The main risks of {company} in {period} [were|remained] {first_risk} and {second_risk}.",
                "For {period}, {company} [names|reports] two risks, {first_risk} and {second_risk}.",
            ),
        ),
        "Exposure": (
            (
                "Total debt [is|stands at] {debt}, with a floating share of {floating_share}.",
                "The floating share is {floating_share} [on|of] total debt of {debt}.",
                "The company [carries|has] total debt of {debt} and a floating share of {floating_share}.",
            ),
            (
                "A rate rise of {rate_shock} would [bring|mean|add] an annual cost of {exposure}.",
                "[After|Under|With] a rate rise of {rate_shock}, the annual cost would be {exposure}.",
            ),
            (
                "This is because floating debt [reprices|resets] when [rates|market rates] move.",
                "Fixed debt is [not affected|left out], as its [rate|cost] does not move.",
            ),
        ),
        "Mitigation": (by_sign("100 * exposure - debt", LARGE, SMALL),),
    },
)
