"""Covenant certificate: total debt over EBITDA against its limit; the sign of the headroom is the conclusion."""

from lowrank.data.kinds.kind import Field, Kind, between, by_sign, company, person, quarter_end, share

KIND = Kind(
    name="covenant_certificate",
    title="Covenant Compliance Certificate",
    instruction="Write a covenant compliance certificate in Markdown using only the facts given.",
    fields={
        "company": Field("company", "name", company),
        "officer": Field("officer", "person", person),
        "test_date": Field("test date", "date", quarter_end),
        "total_debt": Field("total debt", "usd_m", between("60.0", "990.0", "0.1")),
        "ebitda": Field("EBITDA", "usd_m", share("total_debt", "0.1800", "0.6000")),
        "leverage": Field("leverage", "ratio", "total_debt / ebitda"),
        "max_leverage": Field("limit", "ratio", between("2.55", "5.95", "0.05"), ("leverage limit",)),
        "headroom": Field("headroom", "ratio", "max_leverage - leverage"),
    },
    sections={
        "Certification": (
            (
                "I, {officer}, an officer of {company}, [certify|confirm] the figures below as of {test_date}.",
                "{officer}, [acting for|on behalf of] {company}, certifies this test as of {test_date}.",
                "As of {test_date}, {officer} [certifies|confirms] the following for {company}.",
            ),
        ),
        "Calculation": (
            (
                "Total debt [was|stood at] {total_debt} and EBITDA {ebitda}, so leverage was {leverage}.",
                "With total debt of {total_debt} and EBITDA of {ebitda}, leverage [was|came to] {leverage}.",
                "EBITDA of {ebitda} and total debt of {total_debt} [give|result in] leverage of {leverage}.",
            ),
            (
                "The ratio is [defined|measured] as debt [divided by|over] earnings.",
                "The ratio [divides debt by|sets debt against] earnings, as the agreement requires.",
            ),
        ),
        "Conclusion": (
            by_sign(
                "headroom",
                (
                    "The limit is {max_leverage}, [leaving|which leaves] headroom of {headroom}.",
                    "[Against|Under] the limit of {max_leverage}, headroom is a positive {headroom}.",
                    "Headroom is {headroom} [to|below|under] the limit of {max_leverage}.",
                ),
                (
                    "The limit is {max_leverage}, [giving|which gives] negative headroom of {headroom}.",
                    "[Against|Over] the limit of {max_leverage}, headroom is negative at {headroom}.",
                    "Headroom is {headroom} [against|to|beyond] the limit of {max_leverage}.",
                ),
            ),
            by_sign(
                "headroom",
                (
                    "The company is in compliance with [the|its] covenant.",
                    "The covenant is [met|satisfied], and the company is in compliance.",
                    "[Hence|Accordingly], the company is in compliance.",
                ),
                (
                    "The company is not in compliance with [the|its] covenant.",
                    "The covenant is [breached|not met], and the company is not in compliance.",
                    "[Hence|Accordingly], the company is not in compliance.",
                ),
            ),
        ),
    },
)
