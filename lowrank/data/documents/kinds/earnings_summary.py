"""Earnings summary: revenue against the prior period; the sign of the change sets the outlook."""

from lowrank.data.documents.kinds.kind import Field, Kind, Sentence, between, by_sign, choice, company, period, share

BETTER = Sentence(
    (
        "Trading was stronger than in the prior period.",
        "The top line grew over the prior period.",
        "Business was better than a period ago.",
        "The top line rose from its earlier level.",
        "Activity expanded over the period.",
    ),
    unseen=("Takings went up on the period before.", "The period brought an advance on the last one."),
)
WORSE = Sentence(
    (
        "Trading was weaker than in the prior period.",
        "The top line shrank from the prior period.",
        "Business was slower than a period ago.",
        "The top line fell from its earlier level.",
        "Activity contracted over the period.",
    ),
    unseen=("Takings went down on the period before.", "The period brought a decline from the last one."),
)
BRIGHT = Sentence(
    (
        "Management names {driver} as the main driver and expects more growth.",
        "Helped by {driver}, management expects the business to grow further.",
        "With {driver} behind it, the company looks for further gains.",
        "The main driver was {driver}, and management plans to expand.",
        "Thanks to {driver}, the next period should be better still.",
    ),
    unseen=(
        "Management credits {driver} and raises its sights.",
        "The board sees {driver} carrying the company higher.",
    ),
)
DIM = Sentence(
    (
        "Despite {driver}, management expects demand to stay soft.",
        "Management names {driver} as the main driver and plans with caution.",
        "Even with {driver}, the company looks for a slow year.",
        "The main driver was {driver}, yet management plans to cut costs.",
        "For all the help of {driver}, the next period may be weak.",
    ),
    unseen=(
        "Management credits {driver} but lowers its sights.",
        "The board does not see {driver} turning the business around soon.",
    ),
)

KIND = Kind(
    name="earnings_summary",
    title="Earnings Summary",
    noun="an earnings summary",
    fields={
        "company": Field("company", "name", company, ("issuer", "reporting company")),
        "period": Field("period", "period", period, ("reporting period",)),
        "revenue": Field(
            "revenue", "usd_m", between("60.0", "990.0", "0.1"), ("net revenue", "turnover"), also=("sales",)
        ),
        "prior_revenue": Field(
            "prior revenue", "usd_m", share("revenue", "0.7200", "1.2500"), ("earlier revenue", "prior turnover")
        ),
        "change": Field("change", "pct", "100 * (revenue / prior_revenue - 1)", ("revenue change", "growth rate")),
        "gross_margin": Field("gross margin", "pct", between("18.0", "72.0", "0.1"), ("margin on sales",)),
        "net_income": Field(
            "net income",
            "usd_m",
            share("revenue", "0.0300", "0.1700"),
            ("net profit", "net earnings"),
            also=("profit",),
        ),
        "eps": Field(
            "earnings per share", "usd", between("0.15", "9.85", "0.01"), ("profit per share",), also=("EPS",)
        ),
        "driver": Field(
            "driver",
            "text",
            choice("higher volumes|price increases|new stores|a mild winter|export demand|renewals|new products"),
            ("main driver",),
        ),
    },
    sections={
        "Headline": (
            Sentence(
                (
                    "{company} reported revenue of {revenue} for {period}.",
                    "For {period}, {company} posted sales of {revenue}.",
                    "In {period}, revenue at {company} was {revenue}.",
                    "Revenue of {company} reached {revenue} in {period}.",
                    "{company} closed {period} with revenue of {revenue}.",
                ),
                unseen=(
                    "Turnover at {company} added up to {revenue} over {period}.",
                    "The books of {company} show net revenue of {revenue} for {period}.",
                ),
            ),
            Sentence(
                (
                    "Against prior revenue of {prior_revenue}, this is a change of {change}.",
                    "Prior revenue was {prior_revenue}, which makes a change of {change}.",
                    "That compares with prior revenue of {prior_revenue}, a change of {change}.",
                    "The change was {change} from prior revenue of {prior_revenue}.",
                    "With prior revenue at {prior_revenue}, the change came to {change}.",
                ),
                unseen=(
                    "Set beside earlier revenue of {prior_revenue}, the growth rate was {change}.",
                    "The move from prior turnover of {prior_revenue} is a revenue change of {change}.",
                ),
            ),
            by_sign("change", BETTER, WORSE),
        ),
        "Profitability": (
            Sentence(
                (
                    "Gross margin was {gross_margin} and net income {net_income}.",
                    "Net income reached {net_income} on a gross margin of {gross_margin}.",
                    "The company earned net income of {net_income} at a gross margin of {gross_margin}.",
                    "With a gross margin of {gross_margin}, net income came to {net_income}.",
                    "A gross margin of {gross_margin} left net income of {net_income}.",
                ),
                unseen=(
                    "Net profit amounted to {net_income} with gross margin at {gross_margin}.",
                    "The gross margin of {gross_margin} fed into net earnings of {net_income}.",
                ),
            ),
            Sentence(
                (
                    "Earnings per share were {eps}.",
                    "This gives earnings per share of {eps}.",
                    "Shareholders saw earnings per share of {eps}.",
                    "Per share, that is EPS of {eps}.",
                    "Earnings per share came to {eps} for the period.",
                ),
                unseen=("EPS amounted to {eps}.", "Each holder had profit per share of {eps}."),
            ),
        ),
        "Outlook": (by_sign("change", BRIGHT, DIM),),
    },
)
