"""Management discussion: revenue to gross profit to operating income, then cash against capital spending."""

from lowrank.data.documents.kinds.kind import Field, Kind, Sentence, between, by_sign, company, period, share

IN_PROFIT = Sentence(
    (
        "Operating expenses were {opex}, and operating income was {operating_income}.",
        "Net of operating expenses of {opex}, operating income was a positive {operating_income}.",
        "After operating expenses of {opex}, operating income reached {operating_income}.",
        "Operating expenses of {opex} left operating income of {operating_income}.",
        "With operating expenses of {opex}, operating income came to {operating_income}.",
    ),
    unseen=(
        "Overheads took {opex}, so the operating profit was {operating_income}.",
        "Once operating costs of {opex} were met, an operating profit of {operating_income} remained.",
    ),
)
IN_LOSS = Sentence(
    (
        "Operating expenses of {opex} exceeded this, so operating income was {operating_income}.",
        "With operating expenses of {opex}, operating income fell to {operating_income}.",
        "Operating expenses were too high at {opex}, and operating income was {operating_income}.",
        "After operating expenses of {opex}, operating income was negative at {operating_income}.",
        "Operating expenses of {opex} pushed operating income down to {operating_income}.",
    ),
    unseen=(
        "Overheads took {opex}, so the operating result was negative at {operating_income}.",
        "Once operating costs of {opex} were met, the operating result was {operating_income}.",
    ),
)
COVERED = Sentence(
    (
        "Cash covers planned spending, and no new borrowing is needed.",
        "Management considers liquidity to be sufficient for the year ahead.",
        "The company expects to fund its spending from its own means.",
        "Cash exceeds planned spending, so liquidity is ample.",
        "Own means are enough for the plans in hand.",
    ),
    unseen=("No loan is called for to carry out the plans.", "The treasury can meet the plans without a lender."),
)
STRETCHED = Sentence(
    (
        "Spending exceeds cash on hand, and new borrowing is planned.",
        "Management plans to draw on credit lines.",
        "The company expects to borrow for part of this spending.",
        "Spending is above cash on hand, so credit lines will be used.",
        "Own means are not enough for the plans in hand.",
    ),
    unseen=("A loan is called for to carry out the plans.", "The treasury cannot meet the plans without a lender."),
)

KIND = Kind(
    name="mdna_section",
    title="Management Discussion and Analysis",
    noun="a management discussion section",
    fields={
        "company": Field("company", "name", company, ("issuer", "registrant")),
        "period": Field("period", "period", period, ("reporting period",)),
        "revenue": Field("revenue", "usd_m", between("80.0", "990.0", "0.1"), ("net revenue", "turnover")),
        "cogs": Field(
            "cost of sales", "usd_m", share("revenue", "0.3500", "0.7500"), ("cost of goods", "direct costs")
        ),
        "gross_profit": Field("gross profit", "usd_m", "revenue - cogs", ("gross income", "gross result")),
        "opex": Field(
            "operating expenses", "usd_m", share("gross_profit", "0.4500", "1.2000"), ("operating costs", "overheads")
        ),
        "operating_income": Field(
            "operating income", "usd_m", "gross_profit - opex", ("operating profit", "operating result")
        ),
        "cash": Field("cash", "usd_m", share("revenue", "0.0500", "0.4000"), ("cash balance", "cash on hand")),
        "capex": Field(
            "capital expenditure", "usd_m", share("revenue", "0.0300", "0.2000"), ("capital spending", "capex")
        ),
    },
    sections={
        "Results of Operations": (
            Sentence(
                (
                    "In {period}, {company} earned revenue of {revenue}.",
                    "Revenue of {company} came to {revenue} in {period}.",
                    "{company} generated revenue of {revenue} in {period}.",
                    "For {period}, {company} recorded revenue of {revenue}.",
                    "Revenue was {revenue} at {company} for {period}.",
                ),
                unseen=(
                    "Turnover of {company} stood at {revenue} for {period}.",
                    "Over {period}, {company} brought in net revenue of {revenue}.",
                ),
            ),
            Sentence(
                (
                    "Cost of sales was {cogs}, leaving gross profit of {gross_profit}.",
                    "After cost of sales of {cogs}, gross profit stood at {gross_profit}.",
                    "Gross profit was {gross_profit} after cost of sales of {cogs}.",
                    "With cost of sales at {cogs}, gross profit came to {gross_profit}.",
                    "Less cost of sales of {cogs}, this gives gross profit of {gross_profit}.",
                ),
                unseen=(
                    "Direct costs used {cogs}, so gross income was {gross_profit}.",
                    "Gross profit amounted to {gross_profit}, the cost of goods being {cogs}.",
                ),
            ),
        ),
        "Operating Income": (by_sign("operating_income", IN_PROFIT, IN_LOSS),),
        "Liquidity": (
            Sentence(
                (
                    "The period closed with cash of {cash} and capital expenditure of {capex}.",
                    "Cash stood at {cash}, against capital expenditure of {capex}.",
                    "Capital expenditure was {capex}, with cash of {cash}.",
                    "At the end, cash was {cash} and capital expenditure {capex}.",
                    "Capital expenditure of {capex} compares with cash of {cash}.",
                ),
                unseen=(
                    "The cash balance was {cash}, beside capital spending of {capex}.",
                    "Capex took {capex}, and cash on hand is {cash}.",
                ),
            ),
            by_sign("cash - capex", COVERED, STRETCHED),
        ),
    },
)
