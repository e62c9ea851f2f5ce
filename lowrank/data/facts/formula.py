"""The grammar of formulas and conditions: arithmetic, comparisons, `and`, `or` over named values.

    or < and < comparison (< <= > >= == !=) < + - < * / < unary minus        loosest first, left to right
    operands: a key, a whole number, parentheses; in a condition also a decimal number ("2.50") and a text ('adverse')

A formula ("total_debt / ebitda") is what a derived figure is computed by, a condition ("leverage <= 4.00 and coverage
>= 2.50") what decides between sentences. `parse` turns either into postfix order (Dijkstra's shunting yard), which a
stack evaluates: no Python is run, and neither length nor depth of a text is limited by recursion.
Numbers are `Decimal`, computed to 60 digits and never rounded here; see `round_half_up` for the rounding of figures.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal, DivisionByZero, InvalidOperation, Overflow, localcontext
from functools import lru_cache
from typing import Any

# All arithmetic runs in this context, so what a caller did to the thread's own cannot reach a figure.
ARITHMETIC = Context(prec=60, rounding=ROUND_HALF_UP)

Value = Decimal | str | bool

_ARITHMETIC_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_ORDERINGS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EQUALITIES: Mapping[str, Callable[[Any, Any], Any]] = {"==": operator.eq, "!=": operator.ne}
_CONNECTIVES: Mapping[str, Callable[[Any, Any], Any]] = {"and": operator.and_, "or": operator.or_}
_BINARY = {**_ARITHMETIC_OPERATORS, **_ORDERINGS, **_EQUALITIES, **_CONNECTIVES}
_NEGATIVE = "unary -"
_PRECEDENCE = (
    {"or": 1, "and": 2}
    | dict.fromkeys((*_ORDERINGS, *_EQUALITIES), 3)
    | dict.fromkeys("+-", 4)
    | dict.fromkeys("*/", 5)
    | {_NEGATIVE: 6}
)
WORDS = tuple(_CONNECTIVES)  # no key of a condition can be called so

_TOKEN = re.compile(r"(?P<number>\d+(?:\.\d+)?)|(?P<name>[^\W\d]\w*)|(?P<text>'[^']*')|(?P<sign><=|>=|==|!=|\S)")
_TYPE_NAMES = {Decimal: "a number", str: "a text", bool: "a condition"}


@dataclass(frozen=True)
class Operand:
    """A key ("ebitda", constant None) or a constant, as it is written."""

    written: str
    constant: Decimal | str | None = None


@dataclass(frozen=True)
class Formula:
    """A parsed formula or condition.

    text     as it is written
    what     "formula" or "condition", for messages
    postfix  operands, and names of operators behind their operands: a + b is (a, b, "+")
    """

    text: str
    what: str
    postfix: tuple[Operand | str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that occur, each once, in order."""
        operands = (item for item in self.postfix if isinstance(item, Operand) and item.constant is None)
        return tuple(dict.fromkeys(operand.written for operand in operands))

    def type(self, types: Mapping[str, type]) -> type:
        """The type of the result, Decimal, str or bool, given those of the keys (Decimal or str).

        Raises ValueError for an unknown key and an operator on other types than its own.
        """
        stack: list[type] = []
        for item in self.postfix:
            if isinstance(item, Operand):
                if item.constant is None and item.written not in types:
                    raise ValueError(
                        f"{self._place}: unknown key {item.written!r}; known: {', '.join(types) or 'none'}"
                    )
                stack.append(types[item.written] if item.constant is None else type(item.constant))
                continue
            operands = [stack.pop() for _ in range(1 if item == _NEGATIVE else 2)][::-1]
            if item in _EQUALITIES:
                fits = operands[0] is operands[1] and operands[0] is not bool
            else:
                fits = all(operand is (bool if item in _CONNECTIVES else Decimal) for operand in operands)
            if not fits:
                found = " and ".join(_TYPE_NAMES[operand] for operand in operands)
                raise ValueError(f"{self._place}: {item!r} cannot take {found}")
            stack.append(Decimal if item in _ARITHMETIC_OPERATORS or item == _NEGATIVE else bool)
        return stack[0]

    def evaluate(self, values: Mapping[str, Decimal | str]) -> Value:
        """The unrounded result, given the values of the keys. `type` tells whether the operators fit them.

        Raises ValueError for a key without a value, a division by zero and a number that is too large.
        """
        stack: list[Any] = []
        try:
            with localcontext(ARITHMETIC):
                for item in self.postfix:
                    if isinstance(item, Operand):
                        stack.append(self._value(item, values))
                    elif item == _NEGATIVE:
                        stack.append(-stack.pop())
                    else:
                        right, left = stack.pop(), stack.pop()
                        stack.append(_BINARY[item](left, right))
        except Overflow:
            raise ValueError(f"{self._place}: the result is too large") from None
        except (DivisionByZero, InvalidOperation):
            raise ValueError(f"{self._place}: divides by zero") from None
        result: Value = stack[0]
        return result

    def _value(self, operand: Operand, values: Mapping[str, Decimal | str]) -> Decimal | str:
        if operand.constant is not None:
            return operand.constant
        if operand.written not in values:
            raise ValueError(f"{self._place}: {operand.written!r} is neither arithmetic nor a figure of the record")
        return values[operand.written]

    @property
    def _place(self) -> str:
        return f"{self.what} {self.text!r}"


@lru_cache(maxsize=4096)
def parse(text: str) -> Formula:
    """A formula: + - * /, parentheses, whole numbers and keys.  Raises ValueError for anything else."""
    return _parse(text, "formula", {*_ARITHMETIC_OPERATORS})


@lru_cache(maxsize=4096)
def parse_condition(text: str) -> Formula:
    """A condition: formulas with comparisons, `and`, `or`, decimal numbers and texts in single quotes.

    Raises ValueError for anything else.
    """
    return _parse(text, "condition", {*_BINARY})


def _parse(text: str, what: str, operators: set[str]) -> Formula:
    """Shunting yard: `waiting` has operators and open parentheses whose right side is not read yet."""
    postfix: list[Operand | str] = []
    waiting: list[str] = []
    wants_operand = True
    refused = f"{what} {text!r}: {{!r}} is neither arithmetic nor a figure of the record"
    unfinished = f"{what} {text!r}: must be arithmetic over keys of the record"
    for match in _TOKEN.finditer(text):
        token = match[0]
        is_operator = token in operators
        if wants_operand and match["number"] and (what == "condition" or token.isdecimal()):
            postfix.append(Operand(token, Decimal(token)))
            wants_operand = False
        elif wants_operand and match["text"] and what == "condition":
            postfix.append(Operand(token, token[1:-1]))
            wants_operand = False
        elif wants_operand and match["name"] and not is_operator:
            postfix.append(Operand(token))
            wants_operand = False
        elif wants_operand and token in ("(", "-"):
            waiting.append("(" if token == "(" else _NEGATIVE)
        elif not wants_operand and is_operator:
            while waiting and waiting[-1] != "(" and _PRECEDENCE[waiting[-1]] >= _PRECEDENCE[token]:
                postfix.append(waiting.pop())
            waiting.append(token)
            wants_operand = True
        elif not wants_operand and token == ")" and "(" in waiting:
            while waiting[-1] != "(":
                postfix.append(waiting.pop())
            waiting.pop()
        else:
            raise ValueError(refused.format(token))
    if wants_operand or "(" in waiting:
        raise ValueError(unfinished)
    return Formula(text, what, (*postfix, *reversed(waiting)))
