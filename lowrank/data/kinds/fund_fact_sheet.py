"""Fund fact sheet: size, return against the benchmark, the largest holding and the fee."""

from lowrank.data.kinds.kind import Field, Kind, between, by_sign, company, fund

KIND = Kind(
    name="fund_fact_sheet",
    title="Fund Fact Sheet",
    instruction="Write a fund fact sheet in Markdown using only the facts given.",
    fields={
        "fund": Field("fund", "name", fund),
        "nav": Field("net asset value", "usd", between("8.05", "249.95", "0.01"), ("NAV",)),
        "aum": Field("assets", "usd_m", between("25.0", "990.0", "0.1")),
        "fund_return": Field("one-year return", "pct", between("-14.9", "29.9", "0.1")),
        "benchmark": Field("benchmark", "pct", between("-12.9", "24.9", "0.1")),
        "excess": Field("excess", "pct", "fund_return - benchmark"),
        "holding": Field("top holding", "name", company),
        "weight": Field("weight", "pct", between("2.1", "9.9", "0.1")),
        "fee": Field("fee", "rate", between("0.05", "2.25", "0.01")),
    },
    sections={
        "Overview": (
            (
                "{fund} [manages|holds|has] assets of {aum} at a net asset value of {nav}.",
                "The net asset value of {fund} is {nav}, [on|with] assets of {aum}.",
                "With assets of {aum}, {fund} has a net asset value of {nav}.",
            ),
        ),
        "Performance": (
            (
                "The one-year return [was|came to] {fund_return}, against a benchmark of {benchmark}.",
                "With the benchmark at {benchmark}, the one-year return [was|reached] {fund_return}.",
                "A one-year return of {fund_return} [compares with|stands against] a benchmark of {benchmark}.",
            ),
            by_sign(
                "excess",
                (
                    "The fund [led|beat] its index, with an excess of {excess}.",
                    "This is a [positive|favourable] excess of {excess}.",
                    "The excess [is|was] {excess}, ahead of the index.",
                ),
                (
                    "The fund [lagged|trailed] its index, with an excess of {excess}.",
                    "This is a [negative|weak] excess of {excess}.",
                    "The excess [is|was] {excess}, behind the index.",
                ),
            ),
        ),
        "Holdings": (
            (
                "The [top|largest] holding is {holding}, with a weight of {weight}.",
                "{holding} is the [top|largest] holding at a weight of {weight}.",
                "[Top|Largest] holding: {holding}, weight {weight}.",
            ),
            (
                "The weight is [its share|the share held] of all assets.",
                "No [other holding|other position] is as [large|heavy].",
            ),
        ),
        "Fees": (
            (
                "The [annual|yearly] fee is {fee}.",
                "[Investors pay|The fund charges] a fee of {fee} a year.",
                "A fee of {fee} is [charged|taken] each year.",
            ),
            (
                "It [lowers|reduces] what [investors|holders] earn.",
                "It is [paid|met] out of the assets of [the fund|all holders].",
            ),
        ),
    },
)
