"""Management discussion: revenue to gross profit to operating income, then cash against capital spending."""

from lowrank.data.kinds.kind import Field, Kind, Sentence, between, by_sign, company, period, share

COVERED: Sentence = (
    "Cash [covers|exceeds] planned spending, and [no new borrowing is needed|liquidity is ample].",
    "Management [considers|believes] liquidity to be sufficient for the year ahead.",
    "The company [expects|plans] to fund its spending from its own means.",
)
STRETCHED: Sentence = (
    "Spending [exceeds|is above] cash on hand, and [new borrowing is planned|credit lines will be used].",
    "Management [plans|expects] to draw on credit lines.",
    "The company [expects|intends] to borrow for part of this spending.",
)

KIND = Kind(
    name="mdna_section",
    title="Management Discussion and Analysis",
    instruction="Write a management discussion section in Markdown using only the facts given.",
    fields={
        "company": Field("company", "name", company),
        "period": Field("period", "period", period),
        "revenue": Field("revenue", "usd_m", between("80.0", "990.0", "0.1")),
        "cogs": Field("cost of sales", "usd_m", share("revenue", "0.3500", "0.7500")),
        "gross_profit": Field("gross profit", "usd_m", "revenue - cogs"),
        "opex": Field("operating expenses", "usd_m", share("gross_profit", "0.4500", "1.2000")),
        "operating_income": Field("operating income", "usd_m", "gross_profit - opex"),
        "cash": Field("cash", "usd_m", share("revenue", "0.0500", "0.4000")),
        "capex": Field("capital expenditure", "usd_m", share("revenue", "0.0300", "0.2000")),
    },
    sections={
        "Results of Operations": (
            (
                "In {period}, {company} [earned|recorded|had] revenue of {revenue}.",
                "Revenue of {company} [was|came to|reached] {revenue} in {period}.",
                "{company} [generated|reported] revenue of {revenue} in {period}.",
            ),
            (
                "Cost of sales [was|came to|amounted to] {cogs}, leaving gross profit of {gross_profit}.",
                "After cost of sales of {cogs}, gross profit [was|stood at] {gross_profit}.",
                "Gross profit was {gross_profit} [after|net of] cost of sales of {cogs}.",
            ),
        ),
        "Operating Income": (
            by_sign(
                "operating_income",
                (
                    "Operating expenses [were|came to] {opex}, and operating income [was|reached] {operating_income}.",
                    "Net of operating expenses of {opex}, operating income was [a positive|still] {operating_income}.",
                ),
                (
                    "Operating expenses of {opex} [exceeded|outran] this, so operating income was {operating_income}.",
                    "With operating expenses of {opex}, operating income [was negative at|fell to] {operating_income}.",
                    "Operating expenses were too high at {opex}, and operating income was {operating_income}.",
                ),
            ),
        ),
        "Liquidity": (
            (
                "The period [ended|closed] with cash of {cash} and capital expenditure of {capex}.",
                "Cash [was|stood at] {cash}, against capital expenditure of {capex}.",
                "Capital expenditure was {capex}, [with|against] cash of {cash}.",
            ),
            by_sign("cash - capex", COVERED, STRETCHED),
        ),
    },
)
