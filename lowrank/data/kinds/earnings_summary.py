"""Earnings summary: revenue against the prior period; the sign of the change sets the outlook."""

from lowrank.data.kinds.kind import Field, Kind, between, by_sign, choice, company, period, share

KIND = Kind(
    name="earnings_summary",
    title="Earnings Summary",
    instruction="Write an earnings summary in Markdown using only the facts given.",
    fields={
        "company": Field("company", "name", company),
        "period": Field("period", "period", period),
        "revenue": Field("revenue", "usd_m", between("60.0", "990.0", "0.1"), ("sales",)),
        "prior_revenue": Field("prior revenue", "usd_m", share("revenue", "0.7200", "1.2500")),
        "change": Field("change", "pct", "100 * (revenue / prior_revenue - 1)"),
        "gross_margin": Field("gross margin", "pct", between("18.0", "72.0", "0.1")),
        "net_income": Field("net income", "usd_m", share("revenue", "0.0300", "0.1700"), ("profit",)),
        "eps": Field("earnings per share", "usd", between("0.15", "9.85", "0.01"), ("EPS",)),
        "driver": Field(
            "driver",
            "text",
            choice("higher volumes|price increases|new stores|a mild winter|export demand|renewals|new products"),
        ),
    },
    sections={
        "Headline": (
            (
                "{company} [reported|posted|recorded] revenue of {revenue} for {period}.",
                "For {period}, {company} [reported|posted] sales of {revenue}.",
                "In {period}, revenue at {company} [was|reached|came to] {revenue}.",
            ),
            (
                "[Against|Compared with] prior revenue of {prior_revenue}, this is a change of {change}.",
                "Prior revenue was {prior_revenue}, [a|which makes a] change of {change}.",
                "That compares with prior revenue of {prior_revenue}, a [total |]change of {change}.",
            ),
            by_sign(
                "change",
                (
                    "[Trading|Business] was [stronger|better] than in the prior period.",
                    "The top line [grew|rose|expanded] over the prior period.",
                ),
                (
                    "[Trading|Business] was [weaker|slower] than in the prior period.",
                    "The top line [shrank|fell|contracted] from the prior period.",
                ),
            ),
        ),
        "Profitability": (
            (
                "Gross margin [was|stood at|came to] {gross_margin} and net income {net_income}.",
                "Net income [was|reached] {net_income} on a gross margin of {gross_margin}.",
                "The company earned net income of {net_income} at a gross margin of {gross_margin}.",
            ),
            (
                "Earnings per share [were|came to|stood at] {eps}.",
                "This [gives|equals|makes] earnings per share of {eps}.",
            ),
        ),
        "Outlook": (
            by_sign(
                "change",
                (
                    "Management [names|cites] {driver} as the main driver and expects [more growth|further gains].",
                    "[Helped by|Thanks to|With] {driver}, management expects the business to grow further.",
                ),
                (
                    "[Despite|Even with] {driver}, management expects demand to stay [soft|weak].",
                    "Management [names|cites] {driver} as the main driver and plans [with caution|to cut costs].",
                ),
            ),
        ),
    },
)
