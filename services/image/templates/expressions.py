"""Expressions of templates: parsed once, to functions that give a value in a scope."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from services.image.templates import filters
from services.image.templates.lexer import Token
from services.image.templates.scope import Scope
from services.image.templates.values import (
    Function,
    TemplateError,
    Value,
    contains,
    integer,
    is_equal,
    is_number,
    is_true,
    negated,
    number,
    wrapped,
)

Evaluate = Callable[[Scope], Value]
_MAX_DEPTH = 40
_COMPARISONS = ("==", "<=", ">=", "!=", "<>", ">", "<")


class Cursor:
    """The tokens of one tag or expression, read from left to right."""

    def __init__(self, tokens: list[Token], line: int) -> None:
        self._tokens, self._at, self.line = tokens, 0, line
        self._depth = 0

    def at_end(self) -> bool:
        return self._at >= len(self._tokens)

    def peek(self) -> Token | None:
        return None if self.at_end() else self._tokens[self._at]

    def take(self, kind: str, *texts: str) -> Token | None:
        """Return the next token and go on, if it is of that kind and one of *texts*."""
        token = self.peek()
        if token is None or token.kind != kind or (texts and token.text not in texts):
            return None
        self._at += 1
        return token

    def need(self, kind: str, *texts: str) -> Token:
        if token := self.take(kind, *texts):
            return token
        raise self.bad(f"expected {' or '.join(texts) or 'a ' + kind}")

    def bad(self, why: str) -> TemplateError:
        token = self.peek()
        return TemplateError(f"{why}, not {token.text[:40]!r}" if token else why, self.line)

    def finish(self) -> None:
        """Raises: TemplateError when something is left."""
        if not self.at_end():
            raise self.bad("expected the end")

    def expression(self) -> Evaluate:
        """Parse the next expression. Raises: TemplateError."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self.bad("the expression is nested too deep")
        try:
            return self._logic()
        finally:
            self._depth -= 1

    # --- from what binds least to what binds most; the shape is pongo2's own --------------------

    def _logic(self) -> Evaluate:
        one = self._relation()
        operator = self.take("symbol", "&&", "||") or self.take("keyword", "and", "or")
        if not operator:
            return one
        return partial(_either if operator.text in ("or", "||") else _both, one, self.expression())

    def _relation(self) -> Evaluate:
        one = self._sum()
        if operator := self.take("symbol", *_COMPARISONS):
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise self.bad("the expression is nested too deep")
            other = self._relation()
            self._depth -= 1
            return partial(_compared, operator.text, one, other)
        if self.take("keyword", "in"):
            return partial(_in, one, self._sum())
        return one

    def _sum(self) -> Evaluate:
        sign = self.take("symbol", "+", "-")
        negates = self.take("symbol", "!") or self.take("keyword", "not")
        found = self._product()
        if negates:
            found = partial(_not, found)
        if sign and sign.text == "-":
            found = partial(_minus, found)
        while operator := self.take("symbol", "+", "-"):
            found = partial(_calculated, operator.text, found, self._product())
        return found

    def _product(self) -> Evaluate:
        found = self._power()
        while operator := self.take("symbol", "*", "/", "%"):
            found = partial(_calculated, operator.text, found, self._power())
        return found

    def _power(self) -> Evaluate:
        bases = [self._factor()]
        while self.take("symbol", "^"):
            bases.append(self._factor())
        found = bases.pop()
        while bases:
            found = partial(_raised, bases.pop(), found)
        return found

    def _factor(self) -> Evaluate:
        if self.take("symbol", "("):
            found = self.expression()
            self.need("symbol", ")")
            return found
        found = self._atom()
        while self.take("symbol", "|"):
            found = self._filtered(found)
        return found

    def _filtered(self, inner: Evaluate) -> Evaluate:
        name = self.need("word").text
        if not filters.known(name):
            raise TemplateError(f"Filter '{name}' is not available in templates of instances", self.line)
        parameter = self._atom() if self.take("symbol", ":") else None
        return partial(_applied, name, inner, parameter)

    def _atom(self) -> Evaluate:
        if token := self.take("string"):
            return partial(_constant, token.text)
        if token := self.take("number"):
            return self._number(token)
        if token := self.take("keyword", "true", "false"):
            return partial(_constant, token.text == "true")
        return self._variable()

    def _number(self, token: Token) -> Evaluate:
        if len(token.text) > 18:
            raise TemplateError("a number is too long", self.line)
        if self.take("symbol", "."):
            return partial(_constant, float(f"{token.text}.{self.need('number').text[:18]}"))
        return partial(_constant, int(token.text))

    def _variable(self) -> Evaluate:
        name = self.need("word").text
        found: Evaluate = partial(_looked_up, name)
        while True:
            if self.take("symbol", "."):
                token = self.take("word") or self.take("keyword") or self.need("number")
                found = partial(_part, found, token.text, self.line)
            elif self.take("symbol", "("):
                found = partial(_called, found, self._arguments(), self.line)
            else:
                return found

    def _arguments(self) -> list[Evaluate]:
        found: list[Evaluate] = []
        while not self.take("symbol", ")"):
            if found:
                self.need("symbol", ",")
            found.append(self.expression())
        return found


def _constant(value: Value, scope: Scope) -> Value:
    return value


def _looked_up(name: str, scope: Scope) -> Value:
    scope.budget.step()
    return scope.find(name)


def _part(inner: Evaluate, name: str, line: int, scope: Scope) -> Value:
    """Return an entry of a map, or an item by its number. There is nothing else to reach."""
    value = inner(scope)
    if value is None:
        return None
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, str | list) and name.isdigit():
        return value[int(name)] if int(name) < len(value) else None
    raise TemplateError(f"there is no {name!r} in something that is no map", line)


def _called(inner: Evaluate, arguments: list[Evaluate], line: int, scope: Scope) -> Value:
    scope.budget.step()
    function = inner(scope)
    if not isinstance(function, Function):
        raise TemplateError("this cannot be called", line)
    return function([argument(scope) for argument in arguments])


def _applied(name: str, inner: Evaluate, parameter: Evaluate | None, scope: Scope) -> Value:
    value = inner(scope)
    return filters.apply(name, value, parameter(scope) if parameter else None, scope.budget)


def _both(one: Evaluate, other: Evaluate, scope: Scope) -> bool:
    return is_true(one(scope)) and is_true(other(scope))


def _either(one: Evaluate, other: Evaluate, scope: Scope) -> bool:
    return is_true(one(scope)) or is_true(other(scope))


def _not(inner: Evaluate, scope: Scope) -> Value:
    return negated(inner(scope))


def _minus(inner: Evaluate, scope: Scope) -> Value:
    value = inner(scope)
    if not is_number(value):
        raise TemplateError("Negative sign on a non-number expression")
    return -value if isinstance(value, float) else wrapped(-value)


def _in(one: Evaluate, other: Evaluate, scope: Scope) -> bool:
    return contains(other(scope), one(scope))


def _compared(operator: str, one: Evaluate, other: Evaluate, scope: Scope) -> bool:
    scope.budget.step()
    a, b = one(scope), other(scope)
    if operator in ("==", "!=", "<>"):
        return is_equal(a, b) == (operator == "==")
    has_float = isinstance(a, float) or isinstance(b, float)
    x, y = (number(a), number(b)) if has_float else (integer(a), integer(b))
    match operator:
        case "<":
            return x < y
        case ">":
            return x > y
        case "<=":
            return x <= y
    return x >= y


def _calculated(operator: str, one: Evaluate, other: Evaluate, scope: Scope) -> Value:
    scope.budget.step()
    a, b = one(scope), other(scope)
    if operator != "%" and (isinstance(a, float) or isinstance(b, float)):
        return _of_floats(operator, number(a), number(b))
    return _of_integers(operator, integer(a), integer(b))


def _of_floats(operator: str, a: float, b: float) -> float:
    match operator:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
    return a / b if b else math.copysign(math.inf, a)


def _of_integers(operator: str, a: int, b: int) -> int:
    match operator:
        case "+":
            return wrapped(a + b)
        case "-":
            return wrapped(a - b)
        case "*":
            return wrapped(a * b)
    if not b:
        raise TemplateError("division by zero")
    # Go rounds towards zero.
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return wrapped(quotient) if operator == "/" else a - b * quotient


def _raised(base: Evaluate, exponent: Evaluate, scope: Scope) -> float:
    scope.budget.step()
    try:
        return math.pow(number(base(scope)), number(exponent(scope)))
    except (OverflowError, ValueError):
        return math.inf
