"""Derived figures: computed from a record by declared rules, and added to it as facts that a document may leave out.

    sum(a, b, ...) = a + b + ...     difference(a, b) = a - b     ratio(a, b) = a / b, a multiple
    share(a, b) = 100 a / b, per cent     change(a, b) = 100 (a / b - 1), per cent

A rule is declared for keys of the record, "ratio(total_debt, ebitda)", or by its name alone, "change", for any two
figures of one type; each figure that a rule gives then counts as right. The formulas of a kind of document are declared
in the kind's file. Rescaling needs no rule: see `figure_matching`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations

from ..facts.fact import Fact, Facts, evaluate, make_fact, round_half_up
from .kind import Field
from .rule_names import RULES

_CALL = re.compile(r"(?P<rule>\w+)(?:\((?P<keys>[^()]*)\))?")


def derive(facts: Facts, rules: Sequence[str]) -> dict[str, Fact]:
    """The record, followed by the figures that the rules give, each labelled by its rule.

    Raises ValueError for an unknown rule, and for keys that are not figures of one type.
    """
    derived = dict(facts)
    for declared in rules:
        match = _CALL.fullmatch(declared.strip())
        if match is None or match["rule"] not in RULES:
            raise ValueError(f"rule {declared!r}: must be one of {', '.join(RULES)}, alone or as ratio(KEY, KEY)")
        rule = match["rule"]
        declared_keys = None if match["keys"] is None else tuple(key.strip() for key in match["keys"].split(","))
        for keys in _pairs(facts, rule) if declared_keys is None else [declared_keys]:
            _check(facts, rule, keys, declared)
            fact = _fact(facts, rule, keys)
            if fact is not None:
                derived[f"{rule}_{'_'.join(keys)}"] = fact
            elif declared_keys is not None:
                raise ValueError(f"rule {declared!r}: divides by zero")
    return derived


def with_formulas(facts: Facts, fields: Mapping[str, Field]) -> dict[str, Fact]:
    """A record that was read, completed by the formulas of its kind.

    A figure that equals its formula gets it as `source`; a figure that is missing is added, and need not be stated.
    """
    completed = dict(facts)
    for key, field in fields.items():
        if not isinstance(field.source, str):
            continue
        try:
            exact = evaluate(field.source, completed)
        except ValueError:  # the record lacks one of its figures
            continue
        fact = make_fact(field.label, field.type, exact, field.source)
        if key not in completed:
            completed[key] = _optional(fact)
        elif completed[key].type == field.type and completed[key].number == fact.number:
            completed[key] = Fact(
                completed[key].value, field.type, completed[key].print, completed[key].label, field.source
            )
    return completed


_GROWTH = re.compile(r"\b(?:growth|change|increase|decrease|rise|decline)\b", re.IGNORECASE)
_EARLIER = re.compile(
    r"\b(?:prior|previous|earlier|last|preceding)(?:[- ](?:year|period|quarter))?\b[ ]*", re.IGNORECASE
)


def disagreements(facts: Facts, fields: Mapping[str, Field]) -> Iterator[str]:
    """A line for each figure that the others contradict: by the formula of its field, or as the growth it is called.

    "revenue growth" of a record with "revenue" and "prior revenue" is 100 (revenue / prior revenue - 1), per cent.
    """
    for key, fact in facts.items():
        field = fields.get(key)
        if field is not None and isinstance(field.source, str) and fact.is_figure and fact.source is None:
            if (found := _other(fact, field.source, facts)) is not None:
                yield f"{fact.label!r} is {fact.print}, {field.source} gives {found}"
        elif field is None and fact.is_figure and fact.unit.dimension == "pct" and _GROWTH.search(fact.label):
            for now, before in _grown(fact, facts):
                if (found := _other(fact, f"100 * ({now} / {before} - 1)", facts)) is not None:
                    yield f"{fact.label!r} is {fact.print}, {facts[now].label} and {facts[before].label} give {found}"


def _other(fact: Fact, formula: str, facts: Facts) -> str | None:
    """The result of a formula, as its type prints it; None if that is what the fact says, or cannot be told."""
    try:
        derived = make_fact(fact.label, fact.type, evaluate(formula, facts))
    except ValueError:
        return None
    decimals = max(0, -int(fact.number.as_tuple().exponent))
    agrees = round_half_up(abs(evaluate(formula, facts)), decimals) == round_half_up(abs(fact.number), decimals)
    return None if agrees else derived.print


def _grown(fact: Fact, facts: Facts) -> Iterator[tuple[str, str]]:
    """(key, key of the same before) of the figure that a growth is of."""
    subject = _GROWTH.sub("", fact.label).casefold().replace(" in ", " ").split()
    for before, earlier in facts.items():
        named = _EARLIER.sub("", earlier.label)
        if not earlier.is_figure or named == earlier.label:
            continue
        for now, later in facts.items():
            same = later.is_figure and later.label.casefold() == named.casefold()
            if same and later.unit.dimension == earlier.unit.dimension and later.label.casefold().split() == subject:
                yield now, before


def _pairs(facts: Facts, rule: str) -> Iterator[tuple[str, ...]]:
    figures = [key for key, fact in facts.items() if fact.is_figure]
    pairs = combinations(figures, 2) if rule == "sum" else permutations(figures, 2)
    return (pair for pair in pairs if facts[pair[0]].type == facts[pair[1]].type)


def _check(facts: Facts, rule: str, keys: tuple[str, ...], declared: str) -> None:
    if len(keys) < 2 or (rule != "sum" and len(keys) > 2):
        raise ValueError(f"rule {declared!r}: {rule} takes two keys" + " or more" * (rule == "sum"))
    for key in keys:
        if key not in facts or not facts[key].is_figure:
            known = ", ".join(key for key, fact in facts.items() if fact.is_figure)
            raise ValueError(f"rule {declared!r}: {key!r} is no figure of the record; there are {known or 'none'}")
    if len({facts[key].type for key in keys}) > 1:
        types = ", ".join(facts[key].type for key in keys)
        raise ValueError(f"rule {declared!r}: its figures must be of one type, got {types}")


def _fact(facts: Facts, rule: str, keys: tuple[str, ...]) -> Fact | None:
    """None for a division by zero."""
    type, formula = {
        "sum": (facts[keys[0]].type, " + ".join(keys)),
        "difference": (facts[keys[0]].type, " - ".join(keys)),
        "ratio": ("ratio", " / ".join(keys)),
        "share": ("pct", f"100 * {' / '.join(keys)}"),
        "change": ("pct", f"100 * ({' / '.join(keys)} - 1)"),
    }[rule]
    if rule in ("ratio", "share", "change") and not facts[keys[1]].number:
        return None
    return _optional(
        make_fact(
            f"{rule} of {' and '.join(facts[key].label for key in keys)}", type, evaluate(formula, facts), formula
        )
    )


def _optional(fact: Fact) -> Fact:
    return Fact(fact.value, fact.type, fact.print, fact.label, fact.source, required=False)
