"""A second reader of documents: it shares no line with `lowrank.data` or `lowrank.grounding`, and judges their texts.

    read(kind, record, text)  ->  for every figure "r" right under its own name, "l" a figure of the record under
                                  another name or under none, "w" no figure of the record; for every statement of a
                                  direction "+" if it fits the record and "-" if it contradicts it

It reads words, not grammars: a figure's name is the last name between it and the figure before it in its sentence; two
names in a row ("leverage and coverage were") are none. It is held to 200 sentences that were labelled by hand,
`tests/lowrank/grounding/labelled_sentences.txt`.
"""

import re
from decimal import Decimal
from typing import NamedTuple

# kind -> key -> the names that English gives it. A figure that is computed from others may have more decimals.
NAMES: dict[str, dict[str, str]] = {
    "earnings_summary": {
        "revenue": "revenue|net revenue|turnover|sales",
        "prior": "prior revenue|earlier revenue|prior turnover",
        "change": "change|revenue change|growth rate",
        "margin": "gross margin|margin on sales",
        "income": "net income|net profit|net earnings|profit",
        "eps": "earnings per share|profit per share|eps",
    },
    "mdna_section": {
        "revenue": "revenue|net revenue|turnover",
        "cogs": "cost of sales|cost of goods|direct costs",
        "gross": "gross profit|gross income|gross result",
        "opex": "operating expenses|operating costs|overheads",
        "operating": "operating income|operating profit|operating result",
        "cash": "cash|cash balance|cash on hand",
        "capex": "capital expenditure|capital spending|capex",
    },
    "risk_disclosure": {
        "debt": "total debt|gross debt|borrowings",
        "share": "floating share|variable share|floating-rate part",
        "shock": "rate rise|rate increase|rise in rates",
        "cost": "annual cost|yearly cost|added cost",
    },
    "credit_memo": {
        "amount": "loan amount|facility amount|requested amount",
        "term": "term in months|tenor in months|term|tenor",
        "debt": "total debt|gross debt|borrowings",
        "ebitda": "ebitda|adjusted ebitda",
        "interest": "interest|interest cost|finance cost",
        "leverage": "leverage|leverage ratio|gearing",
        "coverage": "coverage|interest coverage|coverage ratio",
    },
    "covenant_certificate": {
        "debt": "total debt|gross debt|borrowings",
        "ebitda": "ebitda|adjusted ebitda",
        "leverage": "leverage|leverage ratio|gearing",
        "limit": "limit|maximum leverage|covenant limit",
        "headroom": "headroom|covenant headroom|cushion",
    },
    "invoice_statement": {
        "quantity": "quantity|number of units",
        "price": "unit price|price per unit|price each",
        "subtotal": "subtotal|net amount",
        "rate": "tax rate|vat rate",
        "tax": "tax|tax amount|vat",
        "total": "total|total due|gross amount",
    },
    "aml_sar_narrative": {
        "threshold": "threshold|reporting limit",
        "first": "first deposit|deposit one",
        "second": "second deposit|deposit two",
        "third": "third deposit|deposit three|third of",
        "total": "total|sum|combined amount",
    },
    "investment_thesis": {
        "price": "price|share price|last price",
        "target": "target|price target|fair value",
        "upside": "upside|expected return|potential",
        "eps": "earnings per share|profit per share|eps",
        "multiple": "price to earnings|earnings multiple",
        "growth": "growth|growth rate|yearly growth",
    },
    "fund_fact_sheet": {
        "nav": "net asset value|value per unit|nav",
        "aum": "assets|fund size|managed assets",
        "return": "one-year return|twelve-month return",
        "benchmark": "benchmark|index return|yardstick",
        "excess": "excess|active return|lead",
        "weight": "weight|portfolio share|position size",
        "fee": "fee|annual fee|yearly charge",
    },
    "audit_letter": {
        "pretax": "income before tax|pre-tax income|profit before tax",
        "rate": "materiality rate|percentage applied",
        "materiality": "materiality|materiality level|error threshold",
    },
}  # fmt: skip
COMPUTED = {
    "change", "gross", "operating", "cost", "leverage", "coverage", "headroom", "subtotal", "tax", "total", "upside",
    "multiple", "excess", "materiality",
}  # fmt: skip
# What the directions of a kind speak of: the signed figure, and "above NAME" that is true if it is positive.
SIGNED = {
    "earnings_summary": ("change", {"prior": +1}),
    "mdna_section": ("operating", {}),
    "covenant_certificate": ("headroom", {"limit": -1}),
    "fund_fact_sheet": ("excess", {"benchmark": +1}),
    "investment_thesis": ("upside", {"price": +1}),
}
SPEAKS_OF = {  # the figures of which rising and falling is the signed figure's sign
    "earnings_summary": {"change", "revenue", "prior"},
    "mdna_section": {"operating"},
    "covenant_certificate": {"headroom"},
    "fund_fact_sheet": {"excess", "return"},
    "investment_thesis": {"upside", "target", "price"},
}
UP = {
    "rose", "rise", "rises", "rising", "grew", "grow", "grows", "increase", "increased", "increases", "climbed",
    "gained", "gain", "up", "higher", "stronger", "expanded", "improved", "advanced", "advance", "better",
    "ahead", "led", "beat", "favourable", "positive", "exceeds", "front", "outperformed",
}  # fmt: skip
DOWN = {
    "fell", "fall", "falls", "falling", "shrank", "shrink", "decrease", "decreased", "decreases", "dropped",
    "drop", "down", "lower", "weaker", "slower", "contracted", "declined", "decline", "worse", "behind",
    "lagged", "trailed", "negative", "loss", "short", "underperformed", "reduced",
}  # fmt: skip
COMPARED = {
    "ahead", "led", "beat", "front", "outperformed", "exceeds", "behind", "lagged", "trailed", "underperformed",
}  # fmt: skip
# "A price puts risk in front" says of no figure that it is ahead.
_IS_IN_FRONT = re.compile(
    r"(?:\b(?:is|was|are|were|be|came|comes|finished|ended|stayed|stays|remains)|[\d%)]|cent) in $"
)
ABOVE, BELOW = {"above", "over", "exceeding"}, {"below", "under"}
UNJUDGED = re.compile(
    r"\b(?:expects?|will|would|may|might|could|should|plans?|next|looks for|board|sights|not|never|no|neither|each|none"
    r"|every|whether|if|unless)\b"
)

SCALES = {
    "thousand": 3, "k": 3, "million": 6, "m": 6, "mn": 6, "mln": 6, "mio": 6, "billion": 9, "bn": 9, "b": 9, "bln": 9,
    "trillion": 12, "tn": 12, "trn": 12, "t": 12, "lakh": 5, "crore": 7, "cr": 7, "mrd": 9, "milliard": 9,
}  # fmt: skip
SIGNS = {
    "$": "usd",
    "us$": "usd",
    "usd": "usd",
    "€": "eur",
    "eur": "eur",
    "£": "gbp",
    "gbp": "gbp",
    "¥": "jpy",
    "₹": "inr",
}
CURRENCY_WORDS = {
    "dollars": "usd",
    "dollar": "usd",
    "us-dollar": "usd",
    "us dollar": "usd",
    "us dollars": "usd",
    "us-dollars": "usd",
    "u.s. dollar": "usd",
    "u.s. dollars": "usd",
    "euro": "eur",
    "euros": "eur",
    "pounds": "gbp",
    "yen": "jpy",
    "rupees": "inr",
}
UNITS = {
    "%": ("pct", 0), "percent": ("pct", 0), "per cent": ("pct", 0), "percentage points": ("pct", 0), "bps": ("pct", -2),
    "bp": ("pct", -2), "basis points": ("pct", -2), "basis point": ("pct", -2), "x": ("x", 0), "times": ("x", 0),
}  # fmt: skip
TIMES = {
    "days": "days",
    "weeks": "weeks",
    "quarters": "quarters",
    "years": "years",
    "months": "months",
    "hours": "hours",
}
ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = [
    "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
]  # fmt: skip
SPOKEN = {word: number for number, word in enumerate(ONES)} | {word: 10 * n for n, word in enumerate(TENS, start=2)}

HALVES = {"½": Decimal("0.5"), "¼": Decimal("0.25"), "¾": Decimal("0.75")}
NUMBER = r"(?:\d{1,3}[ ]?)?[½¼¾]|\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?"
SPOKEN_FIRST = rf"(?:{'|'.join(sorted(SPOKEN, key=len, reverse=True))})"
SPOKEN_WORD = rf"(?:{SPOKEN_FIRST}|hundred|and(?=[ ]{SPOKEN_FIRST})|point)"
FIGURE = re.compile(
    rf"""(?P<sign>(?<![\w)%])[-−–](?=[\d$€£¥₹(UE])|\bminus[ ])?
    (?P<currency>(?:\b[A-Z]{{1,2}}\$|[$€£¥₹])[ ]?(?=[-−–(\d])|\b(?!(?:EPS|NAV|VAT)\b)[A-Z]{{3}}[ ]?(?=[-−(]?\d)
      |\bRs\.?[ ]?(?=\d))?
    (?P<inner>[-−–])?(?P<open>\()?
    (?:(?P<number>{NUMBER})
      |\b(?P<spoken>(?i:{SPOKEN_FIRST}
        |an?(?=[ ](?:hundred|thousand|million|billion|trillion)))(?i:[ -]{SPOKEN_WORD})*)\b)
    (?P<close>\))?""",
    re.VERBOSE,
)  # fmt: skip
SCALE = re.compile(
    r"[ \u00a0]?(?P<scale>thousand|mi?llions?|billions?|trillions?|[a-z]+illions?|milliard|lakh|crore|mln"
    r"|bln|mrd|mio|trn|mn|bn|tn|cr|[kmbt])\b",
    re.IGNORECASE,
)
UNIT = re.compile(
    r"[ \u00a0]?(?P<unit>%|percentage points|percent\b|per cent\b|bps\b|bp\b|basis points?\b|x\b|times\b"
    r"|(?:(?:us|u\.s\.)[- ])?dollars?\b|euros?\b|pounds\b"
    r"|yen\b|rupees\b|[$€£¥₹](?![\d-])|[°‰²³½])|[ \u00a0](?P<code>[A-Z]{3})\b(?!-|[ ]?-?\d)|(?P<glued>[a-z]+)",
    re.IGNORECASE,
)
LOOSE = re.compile(r"\b(?:hundreds|thousands?|millions?|billions?|trillions?|crore|lakh)\b|[0-9½²³]")
PERIOD = re.compile(  # in a label
    r"(?<![\d.,])\b(?:FY ?\d\d(?:\d\d)?|[QH]\d(?: ?\d{4})?|(?:19|20)\d\d)\b(?![.,]?\d)", re.IGNORECASE
)
SENTENCE_END = re.compile(r"[.;!?](?=\s|$)")
COUPLED = re.compile(r"\s*(?:,?\s*(?:and|or)|&)\s+(?:the\s+|its\s+)?")
RESTATED = re.compile(r"[\s,(]*(?:or|i\.e\.|that is,?)\s*")
OTHERWISE_NAMED = re.compile(  # words in front of a name that make it the name of something else
    r"\b(?:deferred|unearned|cost of|costs of|share of|percentage of|growth in|change in|increase in|decrease in"
    r"|decline in|rise in|fall in|prior|previous|earlier|last year's|gross|net|operating|adjusted|forecast|former"
    r"|non-\w+|pre-tax)[ ]$"
)
GOES_ON = re.compile(  # words behind a name that make it the name of something else
    r"^[ -](?:growth|margin|ratio|per|rate|target|forecast|guidance|cost|costs|expenses?|increase|decrease|change"
    r"|limit|before|after tax|excluding|coverage|multiple|limited|flow)\b"
)

_NO_DIRECTION = re.compile(
    r"(?:\b(?:add|adds|added|made?|makes|set|sums?|drawn?) up|\byear ahead"
    r"|\b(?:lays?|laid|set|sets|noted) (?:it |them )?down)$"
)


class Quantity(NamedTuple):
    """A figure of a text: where it stands, its value and the place of its last digit, and what it is in."""

    start: int
    end: int
    value: Decimal | None  # None for what cannot be read
    quantum: Decimal
    unit: str
    negative: bool
    enclosed: bool


def read(kind: str, record: str, text: str) -> tuple[str, str]:
    """The verdicts of the figures of a text, and those of its directions, in order: see the module.

    record  a line "label: value" a fact
    """
    verdicts, directions, _ = _read(*_facts(kind, record), kind, text)
    return verdicts, directions


def recall(kind: str, record: str, text: str) -> float | None:
    """The share of the record's figures that the text states right under their own names; None if it has none."""
    facts, texts, labels = _facts(kind, record)
    _, _, stated = _read(facts, texts, labels, kind, text)
    return len(stated) / len(facts) if facts else None


def _read(
    facts: dict[str, Quantity], texts: list[str], labels: dict[str, str], kind: str, text: str
) -> tuple[str, str, set[str]]:
    """Verdicts of figures, of directions, and the facts that figures state under their own names."""
    verdicts, directions, stated = "", "", set[str]()
    periods = {period.lower() for label in labels for period in PERIOD.findall(label)}
    texts = [known for known in texts if known.lower() not in periods]  # "year: 2024" beside "revenue 2024"
    for line in text.split("\n"):
        line = re.sub(r"^[ \t]*(?:#+[ \t]+)?\d{1,2}[.)][ \t]", lambda match: " " * len(match[0]), line)
        numbered = [label for label in labels if re.search(r"[^\w\s]|\d", label)]
        inside = {
            place
            for label in numbered
            for match in re.finditer(rf"(?<![\w-]){re.escape(label)}(?![\w-])", line, re.IGNORECASE)
            for place in range(*match.span())
        }
        for known in sorted(texts, key=len, reverse=True):
            line = re.sub(
                rf"(?<!\w){re.escape(known)}(?!\w)",
                lambda match: match[0] if match.start() in inside else "§" * len(match[0]),  # noqa: B023
                line,
                flags=re.IGNORECASE,
            )
        ends = [match.start() for match in SENTENCE_END.finditer(line) if match.start() not in inside]
        start = 0
        for end in [*ends, len(line)]:
            if start < end:
                some, also, right = _sentence(kind, facts, labels, line[start:end])
                verdicts, directions = verdicts + some, directions + also
                stated |= right
            start = end + 1
    return verdicts, directions, stated


def _facts(kind: str, record: str) -> tuple[dict[str, Quantity], list[str], dict[str, str]]:
    """The figures by key, the other values, and name -> key; a name of several facts -> their keys, a line each."""
    names = {name: key for key, listed in NAMES.get(kind, {}).items() for name in listed.split("|")}
    facts: dict[str, Quantity] = {}
    texts: list[str] = []
    for line in record.splitlines():
        label, _, value = line.partition(": ")
        key = names.setdefault(label.lower(), label.lower())
        quantities = _quantities(value)
        whole = len(quantities) == 1 and quantities[0].end - quantities[0].start == len(value)
        if whole and not re.fullmatch(r"(?:19|20)\d\d|0\d+", value):
            facts[key] = quantities[0]
        else:
            texts.append(value)
    labels = {name: key for name, key in names.items() if key in facts and re.search(r"\w", name)}
    families: dict[str, list[str]] = {}
    for label in [label for label in labels if PERIOD.search(label)]:
        bare = " ".join(PERIOD.sub("", label).strip(" ,()").split())
        families.setdefault(bare, [labels[bare]] if bare in labels else []).append(labels[label])
    return facts, texts, labels | {name: "\n".join(keys) for name, keys in families.items() if name}


def _quantities(text: str) -> list[Quantity]:
    found, at = [], 0
    while match := FIGURE.search(text, at):
        end, exponent, unit = match.end(), 0, "count"
        value: Decimal | None
        if match["number"]:
            value = _written(match["number"])
            place = int(value.as_tuple().exponent)
        else:
            value, place = _spoken(match["spoken"])
        scale = SCALE.match(text, end)
        spoken_scale = 0
        while scale and match["spoken"] and value is not None and scale["scale"].lower().rstrip("s") in SCALES:
            spoken_scale = SCALES[scale["scale"].lower().rstrip("s")]
            total, last = value.scaleb(spoken_scale), place + spoken_scale
            end = scale.end()
            more = re.compile(rf"(?:,? (?:and )?)(?P<rest>{SPOKEN_WORD}(?:[ -]{SPOKEN_WORD})*)\b").match(text, end)
            if more:
                rest, rest_place = _spoken(more["rest"])
                behind = SCALE.match(text, more.end())
                step = SCALES.get(behind["scale"].lower(), 0) if behind else 0
                total, last = total + rest.scaleb(step), rest_place + step
                end = behind.end() if behind else more.end()
            value, place, scale = total, last, None
        if scale:
            word = scale["scale"].lower()
            word = word if word in SCALES else word.rstrip("s")
            end = scale.end()
            if word in SCALES:
                exponent = SCALES[word]
            else:
                value = None
            while again := SCALE.match(text, end):  # a scale of a scale
                value, end = None, again.end()
        currency = (match["currency"] or "").strip().lower()
        if currency:
            unit = SIGNS.get(currency, currency)
        behind = UNIT.match(text, end)
        if behind and behind["unit"]:
            word = behind["unit"].lower()
            if word in UNITS:
                unit, step = UNITS[word] if unit == "count" else ("mixed", 0)
                exponent += step
            elif word in CURRENCY_WORDS:
                unit = CURRENCY_WORDS[word] if unit in ("count", CURRENCY_WORDS[word]) else "mixed"
            else:
                unit = SIGNS.get(word, "unknown")
            end = behind.end()
        elif (
            behind
            and behind["code"]
            and behind["code"].isupper()
            and behind["code"] not in ("EPS", "NAV", "VAT")
            and (match["number"] or behind["code"].lower() in SIGNS)  # "eight DVD players"
        ):
            unit, end = SIGNS.get(behind["code"].lower(), "unknown"), behind.end()
        elif behind and behind["glued"] and match["number"]:
            unit, end = "unknown", behind.end()
        at = max(end, match.end())
        counted = (
            match["number"] or exponent or spoken_scale or unit not in ("count", "x") or "hundred" in match["spoken"]
        )
        if not counted:
            continue
        time = re.compile(r" (days|weeks|months|quarters|years|hours)\b").match(text, end)
        if unit == "count" and time:
            unit = time[1]
        negative = bool(match["sign"] or match["inner"])
        opened = match["open"] or text[: match.start()].endswith("(")
        enclosed = bool(opened and (match["close"] or text[end : end + 1] == ")"))
        quantum = Decimal((0, (1,), place + exponent))
        found.append(
            Quantity(
                match.start(), end, None if value is None else value.scaleb(exponent), quantum, unit, negative, enclosed
            )
        )
    taken = [(quantity.start, quantity.end) for quantity in found]
    for match in LOOSE.finditer(text):  # a scale or a digit that belongs to nothing
        if not any(start <= match.start() < end for start, end in taken):
            found.append(Quantity(match.start(), match.end(), None, Decimal(1), "unknown", False, False))
    return sorted(found)


def _written(number: str) -> Decimal:
    """The value of "1,204.5", "½" and "2½"."""
    if (half := HALVES.get(number[-1])) is not None:
        return Decimal(number[:-1].strip() or 0) + half
    return Decimal(number.replace(",", ""))


def _spoken(words: str) -> tuple[Decimal, int]:
    """Value and place of the last digit of "four hundred and twelve point five"."""
    whole, decimals, behind_point = 0, "", False
    for word in re.split(r"[ -]", words.lower()):
        if word == "point":
            behind_point = True
        elif word == "hundred":
            whole = (whole or 1) * 100
        elif word in ("a", "an"):
            whole = 1
        elif word in SPOKEN and behind_point:
            decimals += str(SPOKEN[word])
        elif word in SPOKEN:
            whole += SPOKEN[word]
    value = Decimal(f"{whole}.{decimals}" if decimals else whole)
    return value, -len(decimals)


def _sentence(kind: str, facts: dict[str, Quantity], labels: dict[str, str], text: str) -> tuple[str, str, set[str]]:
    names = _names(labels, text)
    periods = {period.lower() for label in labels for period in PERIOD.findall(label)}
    digits = text
    for start, end, _ in names:
        if re.search(r"\d", text[start:end]):
            digits = digits[:start] + "§" * (end - start) + digits[end:]
    digits = PERIOD.sub(lambda match: "§" * len(match[0]) if match[0].lower() in periods else match[0], digits)
    quantities = _quantities(digits)
    verdicts, before, inherited, right = "", 0, None, set[str]()
    for number, quantity in enumerate(quantities):
        window = [name for name in names if before <= name[0] and name[1] <= quantity.start]
        key = _named(window, text)
        if not window and RESTATED.fullmatch(text[before : quantity.start]) and number:
            key = inherited
        elif not window and number == 0:
            limit = quantities[1].start if len(quantities) > 1 else len(text)
            key = next((name[2] for name in names if quantity.end <= name[0] and name[1] <= limit), None)
        key = _of_period(key, labels, text, before, quantity)
        spoken = [
            word[0]
            for word in re.finditer(r"[a-z]+", text[before : quantity.start].lower())
            if not _NO_DIRECTION.search(text[before : before + word.end()].lower())
        ]
        falling = not DOWN.isdisjoint(spoken)
        stating = [fact for fact, of in facts.items() if _states(quantity, of, fact, falling)]
        verdicts += "r" if key in stating else "l" if stating else "w"
        right.update([key] if key is not None and key in stating else [])
        before, inherited = quantity.end, key
    return verdicts, _directions(kind, facts, names, quantities, text), right


def _of_period(key: str | None, labels: dict[str, str], text: str, before: int, quantity: Quantity) -> str | None:
    """The fact of the period beside the figure, among those that share a name but for their period."""
    if key is None or "\n" not in key:
        return key
    beside = re.match(rf"\s*\(?(?:(?:in|for)\s+)?({PERIOD.pattern})", text[quantity.end :], re.IGNORECASE)
    ahead = PERIOD.findall(text[before : quantity.start]) or PERIOD.findall(text[: quantity.start])
    named = beside[1] if beside else ahead[-1] if ahead else ""
    dated = {of: [period.lower() for period in PERIOD.findall(label)] for label, of in labels.items() if of in key}
    family = key.split("\n")
    fitting = [of for of in family if (named.lower() in dated.get(of, ()) if named else not dated.get(of))]
    return fitting[0] if len(fitting) == 1 else None


def _names(labels: dict[str, str], text: str) -> list[tuple[int, int, str | None]]:
    """(start, end, key) of every name; the key is None where words beside it make it another name."""
    if not labels:
        return []
    listed = "|".join(re.escape(name) for name in sorted(labels, key=len, reverse=True))
    found: list[tuple[int, int, str | None]] = []
    for match in re.finditer(rf"(?<![\w-])(?:{listed})(?![\w-])", text, re.IGNORECASE):
        other = OTHERWISE_NAMED.search(text[: match.start()].lower()) or GOES_ON.match(text[match.end() :].lower())
        found.append((match.start(), match.end(), None if other else _key(labels, match[0])))
    return found


def _key(labels: dict[str, str], written: str) -> str:
    """The key of a name; one with a dotless i has no other case, and is looked for as it stands."""
    return labels.get(written.lower()) or next(
        key for name, key in labels.items() if re.fullmatch(re.escape(name), written, re.IGNORECASE)
    )


def _named(window: list[tuple[int, int, str | None]], text: str) -> str | None:
    """The last name, or none if another one stands beside it."""
    if len(window) > 1 and COUPLED.fullmatch(text[window[-2][1] : window[-1][0]]) and window[-2][2] != window[-1][2]:
        return None
    return window[-1][2] if window else None


def _states(written: Quantity, fact: Quantity, key: str, falling: bool) -> bool:
    """True if a figure states a fact: the same unit, the same sign, and the fact rounded to the figure's last digit."""
    units = {"months", "count"} if key == "term" else {"count"} if fact.unit == "count" else {fact.unit}
    if written.value is None or fact.value is None or written.unit not in units:
        return False
    if fact.negative and not (written.negative or written.enclosed or falling):
        return False
    if written.negative and not fact.negative:
        return False
    off = fact.value - written.value
    if written.quantum < fact.quantum:
        slack = fact.quantum / 2 if key in COMPUTED else 0
        return abs(off) <= slack
    if off and written.value < 10 * written.quantum:
        return False
    return -written.quantum <= 2 * off < written.quantum


def _directions(
    kind: str,
    facts: dict[str, Quantity],
    names: list[tuple[int, int, str | None]],
    quantities: list[Quantity],
    text: str,
) -> str:
    if kind not in SIGNED or SIGNED[kind][0] not in facts or UNJUDGED.search(text.lower()):
        return ""
    key, objects = SIGNED[kind]
    positive = not facts[key].negative
    speaks_of = SPEAKS_OF[kind]
    judged = ""
    covered = [range(start, end) for start, end, _ in names]
    for match in re.finditer(r"[A-Za-z]+", text):
        word = match[0].lower()
        if any(match.start() in span for span in covered) or any(q.start <= match.start() < q.end for q in quantities):
            continue
        if _NO_DIRECTION.search(text[: match.end()].lower()):
            continue
        if text[: match.start()].lower().endswith("go-"):  # "the go-ahead"
            continue
        if word == "front" and not _IS_IN_FRONT.search(text[: match.start()].lower()):
            continue
        if word in ABOVE | BELOW:
            following = [name for name in names if name[0] >= match.end()]
            figure = next((q.start for q in quantities if q.start >= match.end()), len(text))
            near = following and following[0][0] - match.end() < 12 and following[0][0] < figure
            near = near and ":" not in text[match.end() : following[0][0]]  # "Debt over average: limit: 2.80 x"
            polarity = objects.get(following[0][2] or "") if near else None
            if polarity is not None:
                judged += "+" if positive == ((word in ABOVE) == (polarity > 0)) else "-"
        elif word in UP | DOWN and not (kind == "earnings_summary" and word in COMPARED):
            ahead = [name[2] for name in names if name[1] <= match.start() and name[2]]
            behind = [name[2] for name in names if name[0] >= match.end() and name[2]]
            beside = next((name[2] for name in names if name[0] == match.end() + 1), None)  # "negative headroom"
            about = beside or (ahead[-1] if ahead else behind[0] if behind else None)
            if about is None or about in speaks_of:
                judged += "+" if positive == (word in UP) else "-"
    return judged
