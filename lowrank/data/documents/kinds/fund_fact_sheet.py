"""Fund fact sheet: size, return against the benchmark, the largest holding and the fee."""

from lowrank.data.documents.kinds.kind import Field, Kind, Sentence, between, by_sign, company, fund

AHEAD = Sentence(
    (
        "The fund led its index, with an excess of {excess}.",
        "This is a favourable excess of {excess}.",
        "The excess is {excess}, ahead of the index.",
        "It beat the index by an excess of {excess}.",
        "An excess of {excess} puts the fund in front.",
    ),
    unseen=(
        "The active return was {excess}, to the holders' gain.",
        "The lead is {excess}, and the fund finished in front.",
    ),
)
BEHIND = Sentence(
    (
        "The fund lagged its index, with an excess of {excess}.",
        "This is a negative excess of {excess}.",
        "The excess is {excess}, behind the index.",
        "It trailed the index, at an excess of {excess}.",
        "An excess of {excess} leaves the fund behind.",
    ),
    unseen=(
        "The active return was {excess}, to the holders' cost.",
        "The lead is {excess}, and the fund finished behind.",
    ),
)

KIND = Kind(
    name="fund_fact_sheet",
    title="Fund Fact Sheet",
    noun="a fund fact sheet",
    fields={
        "fund": Field("fund", "name", fund, ("portfolio", "fund name")),
        "nav": Field("net asset value", "usd", between("8.05", "249.95", "0.01"), ("value per unit",), also=("NAV",)),
        "aum": Field("assets", "usd_m", between("25.0", "990.0", "0.1"), ("fund size", "managed assets")),
        "fund_return": Field("one-year return", "pct", between("-14.9", "29.9", "0.1"), ("twelve-month return",)),
        "benchmark": Field("benchmark", "pct", between("-12.9", "24.9", "0.1"), ("index return", "yardstick")),
        "excess": Field("excess", "pct", "fund_return - benchmark", ("active return", "lead")),
        "holding": Field("top holding", "name", company, ("largest position",)),
        "weight": Field("weight", "pct", between("2.1", "9.9", "0.1"), ("portfolio share", "position size")),
        "fee": Field("fee", "rate", between("0.05", "2.25", "0.01"), ("annual fee", "yearly charge")),
    },
    sections={
        "Overview": (
            Sentence(
                (
                    "{fund} manages assets of {aum} at a net asset value of {nav}.",
                    "The net asset value of {fund} is {nav}, on assets of {aum}.",
                    "With assets of {aum}, {fund} has a net asset value of {nav}.",
                    "{fund} holds assets of {aum}, and its net asset value is {nav}.",
                    "At a net asset value of {nav}, {fund} has assets of {aum}.",
                ),
                unseen=(
                    "{fund} has a fund size of {aum} and a value per unit of {nav}.",
                    "The NAV of {fund} stands at {nav}, its managed assets at {aum}.",
                ),
            ),
        ),
        "Performance": (
            Sentence(
                (
                    "The one-year return was {fund_return}, against a benchmark of {benchmark}.",
                    "With the benchmark at {benchmark}, the one-year return was {fund_return}.",
                    "A one-year return of {fund_return} compares with a benchmark of {benchmark}.",
                    "The benchmark made {benchmark}, and the one-year return was {fund_return}.",
                    "Holders had a one-year return of {fund_return}, next to a benchmark of {benchmark}.",
                ),
                unseen=(
                    "The twelve-month return is {fund_return}, the index return {benchmark}.",
                    "Over one year, measured by a yardstick of {benchmark}, the one-year return was {fund_return}.",
                ),
            ),
            by_sign("excess", AHEAD, BEHIND),
        ),
        "Holdings": (
            Sentence(
                (
                    "The top holding is {holding}, with a weight of {weight}.",
                    "{holding} is the largest holding at a weight of {weight}.",
                    "Top holding: {holding}, weight {weight}.",
                    "At a weight of {weight}, {holding} comes first.",
                    "The largest part is in {holding}, at a weight of {weight}.",
                ),
                unseen=(
                    "{holding} leads the list with a portfolio share of {weight}.",
                    "The largest position is {holding}, its position size {weight}.",
                ),
            ),
            Sentence(
                (
                    "No other holding is as large.",
                    "All other holdings are smaller.",
                    "The rest is spread over many names.",
                    "The remainder is held in smaller parts.",
                    "Every other position weighs less.",
                ),
                unseen=("Nothing else in the fund is of this size.", "Others follow at some distance."),
            ),
        ),
        "Fees": (
            Sentence(
                (
                    "The annual fee is {fee}.",
                    "The fund charges a fee of {fee} a year.",
                    "A fee of {fee} is taken each year.",
                    "Investors pay a fee of {fee} every year.",
                    "For its work the manager takes a fee of {fee}.",
                ),
                unseen=("The yearly charge is {fee}.", "Holders bear a yearly charge of {fee}."),
            ),
            Sentence(
                (
                    "It lowers what investors earn.",
                    "It is paid out of the assets of the fund.",
                    "It is already taken off the return.",
                    "There are no other charges.",
                    "It covers all services of the manager.",
                ),
                unseen=("Nothing is due on entry or exit.", "All running costs are met by it."),
            ),
        ),
    },
)
