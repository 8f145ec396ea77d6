"""Render one template: pieces to a tree of nodes, and the nodes to text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from services.image.templates.expressions import Cursor, Evaluate
from services.image.templates.filters import apply, escaped, known
from services.image.templates.lexer import Piece, split
from services.image.templates.scope import Budget, Scope
from services.image.templates.values import Function, TemplateError, Value, is_equal, is_true, text

Node = Callable[[Scope], Iterator[str]]
MOST_RESULT = 1 << 20
_MAX_DEPTH = 40
_FILES = ("include", "import", "extends", "ssi", "block", "macro")
_SYMBOLS = {
    "openblock": "{%", "closeblock": "%}", "openvariable": "{{", "closevariable": "}}",
    "openbrace": "{", "closebrace": "}", "opencomment": "{#", "closecomment": "#}",
}  # fmt: skip


def render(source: str, context: Mapping[str, Value], budget: Budget) -> str:
    """Return what *source* says in *context*, whose config is what config_get reads too.

    Raises: TemplateError.
    """
    try:
        nodes = _Parser(split(source)).whole()
        public = {**context, "config_get": _config_get(context.get("config") or {})}
        made = "".join(_run(nodes, Scope(public, budget)))
    except RecursionError:
        raise TemplateError("the template is nested too deep") from None
    if len(made) > MOST_RESULT:
        raise TemplateError(f"the template makes more than {MOST_RESULT} bytes")
    return made


def _config_get(config: Mapping[str, str]) -> Function:
    def get(key: Value, default: Value) -> Value:
        found = config.get(text(key))
        return default if found is None else found.rstrip("\r\n")

    return Function("config_get", 2, get)


def _run(nodes: list[Node], scope: Scope) -> Iterator[str]:
    for node in nodes:
        for part in node(scope):
            scope.budget.spend(len(part.encode("utf-8", "surrogatepass")))
            yield part


def _inside(nodes: list[Node], scope: Scope) -> Iterator[str]:
    """Run the nodes of a block; what they make is accounted for once, by the outermost."""
    for node in nodes:
        scope.budget.step()
        yield from node(scope)


class _Parser:
    def __init__(self, pieces: list[Piece]) -> None:
        self._pieces, self._at, self._depth = pieces, 0, 0
        self._tags: dict[str, Callable[[Cursor], Node]] = {
            "if": self._if,
            "ifequal": partial(self._if_equal, True),
            "ifnotequal": partial(self._if_equal, False),
            "for": self._for,
            "set": self._set,
            "with": self._with,
            "comment": self._comment,
            "autoescape": self._autoescape,
            "spaceless": self._spaceless,
            "filter": self._filter,
            "firstof": self._first_of,
            "templatetag": self._template_tag,
        }

    def whole(self) -> list[Node]:
        nodes, _, _ = self._until()
        return nodes

    def _until(self, *ends: str) -> tuple[list[Node], str, Cursor]:
        """Return nodes up to one of the tags *ends*, which one it was, and its arguments."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise TemplateError("tags are nested too deep", self._pieces[self._at - 1].line)
        nodes: list[Node] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            self._at += 1
            if piece.kind == "text":
                nodes.append(partial(_text, piece.text))
                continue
            cursor = Cursor(piece.tokens, piece.line)
            if piece.kind == "expression":
                nodes.append(partial(_shown, cursor.expression()))
                cursor.finish()
                continue
            name = (cursor.take("word") or cursor.need("keyword")).text
            if name in ends:
                self._depth -= 1
                return nodes, name, cursor
            nodes.append(self._tag(name, cursor))
        if ends:
            raise TemplateError(f"Unexpected EOF, expected tag {' or '.join(ends)}")
        return nodes, "", Cursor([], 0)

    def _tag(self, name: str, cursor: Cursor) -> Node:
        if name not in self._tags:
            why = " since it would read other files" if name in _FILES else ""
            raise TemplateError(f"Tag '{name}' is not available in templates of instances{why}", cursor.line)
        return self._tags[name](cursor)

    def _if(self, cursor: Cursor) -> Node:
        branches: list[tuple[Evaluate, list[Node]]] = []
        condition = cursor.expression()
        cursor.finish()
        while True:
            nodes, end, arguments = self._until("elif", "else", "endif")
            branches.append((condition, nodes))
            if end != "elif":
                break
            condition = arguments.expression()
            arguments.finish()
        arguments.finish()
        return partial(_branched, branches, self._until("endif")[0] if end == "else" else [])

    def _if_equal(self, wanted: bool, cursor: Cursor) -> Node:
        one, other = cursor.expression(), cursor.expression()
        cursor.finish()
        close = "endifequal" if wanted else "endifnotequal"
        nodes, end, _ = self._until("else", close)
        rest = self._until(close)[0] if end == "else" else []
        return partial(_branched, [(lambda scope: is_equal(one(scope), other(scope)) == wanted, nodes)], rest)

    def _for(self, cursor: Cursor) -> Node:
        key, value = cursor.need("word").text, ""
        if cursor.take("symbol", ","):
            value = cursor.need("word").text
        cursor.need("keyword", "in")
        items = cursor.expression()
        order = {word for word in ("reversed", "sorted") if cursor.take("word", word)}
        cursor.finish()
        nodes, end, _ = self._until("empty", "endfor")
        otherwise = self._until("endfor")[0] if end == "empty" else []
        return partial(_looped, key, value, items, order, nodes, otherwise)

    def _set(self, cursor: Cursor) -> Node:
        name = cursor.need("word").text
        cursor.need("symbol", "=")
        value = cursor.expression()
        cursor.finish()
        return partial(_assigned, name, value)

    def _with(self, cursor: Cursor) -> Node:
        pairs: dict[str, Evaluate] = {}
        while not cursor.at_end():
            name = cursor.need("word").text
            cursor.need("symbol", "=")
            pairs[name] = cursor.expression()
        return partial(_with_values, pairs, self._until("endwith")[0])

    def _comment(self, cursor: Cursor) -> Node:
        cursor.finish()
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            self._at += 1
            if piece.kind == "tag" and piece.tokens and piece.tokens[0].text == "endcomment":
                return partial(_text, "")
        raise TemplateError("Unexpected EOF, expected tag endcomment", cursor.line)

    def _autoescape(self, cursor: Cursor) -> Node:
        mode = cursor.need("word", "on", "off").text
        cursor.finish()
        return partial(_escaping, mode == "on", self._until("endautoescape")[0])

    def _spaceless(self, cursor: Cursor) -> Node:
        cursor.finish()
        return partial(_without_spaces, self._until("endspaceless")[0])

    def _filter(self, cursor: Cursor) -> Node:
        name = cursor.need("word").text
        if not known(name):
            raise TemplateError(f"Filter '{name}' is not available in templates of instances", cursor.line)
        parameter = cursor.expression() if cursor.take("symbol", ":") else None
        cursor.finish()
        return partial(_filtered, name, parameter, self._until("endfilter")[0])

    def _first_of(self, cursor: Cursor) -> Node:
        choices = []
        while not cursor.at_end():
            choices.append(cursor.expression())
        return partial(_first_true, choices)

    def _template_tag(self, cursor: Cursor) -> Node:
        return partial(_text, _SYMBOLS[cursor.need("word", *_SYMBOLS).text])


def _text(value: str, scope: Scope) -> Iterator[str]:
    yield value


def _shown(value: Evaluate, scope: Scope) -> Iterator[str]:
    scope.budget.step()
    found = value(scope)
    yield escaped(found) if scope.escapes and isinstance(found, str) else text(found)


def _branched(
    branches: list[tuple[Evaluate, list[Node]]], otherwise: list[Node], scope: Scope
) -> Iterator[str]:
    for condition, nodes in branches:
        if is_true(condition(scope)):
            yield from _inside(nodes, scope)
            return
    yield from _inside(otherwise, scope)


def _looped(
    key: str,
    value: str,
    items: Evaluate,
    order: set[str],
    nodes: list[Node],
    otherwise: list[Node],
    scope: Scope,
) -> Iterator[str]:
    inner = scope.child()
    outer, found = inner.find("forloop"), items(inner)
    pairs = _pairs(found, order)
    for index, (item, more) in enumerate(pairs):
        scope.budget.step()
        inner.set(key, item)
        if value and isinstance(found, dict):
            inner.set(value, more)
        inner.set("forloop", _place(index, len(pairs), outer))
        yield from _inside(nodes, inner)
    if not pairs:
        yield from _inside(otherwise, inner)


def _place(index: int, count: int, outer: Value) -> dict[str, Value]:
    return {
        "Counter": index + 1,
        "Counter0": index,
        "Revcounter": count - index,
        "Revcounter0": count - index - 1,
        "First": index == 0,
        "Last": index + 1 == count,
        "Parentloop": outer,
    }


def _pairs(items: Value, order: set[str]) -> list[tuple[Value, Value]]:
    if isinstance(items, dict):
        return sorted(items.items(), reverse=order == {"reversed", "sorted"})
    if not isinstance(items, str | list):
        return []
    found = sorted(items, key=text) if "sorted" in order else list(items)
    return [(item, None) for item in (reversed(found) if "reversed" in order else found)]


def _assigned(name: str, value: Evaluate, scope: Scope) -> Iterator[str]:
    scope.set(name, value(scope))
    yield ""


def _with_values(pairs: dict[str, Evaluate], nodes: list[Node], scope: Scope) -> Iterator[str]:
    inner = scope.child()
    for name, value in pairs.items():
        inner.set(name, value(scope))
    yield from _inside(nodes, inner)


def _escaping(on: bool, nodes: list[Node], scope: Scope) -> Iterator[str]:
    inner = scope.child()
    inner.escapes = on
    yield from _inside(nodes, inner)


def _without_spaces(nodes: list[Node], scope: Scope) -> Iterator[str]:
    whole = "".join(_run(nodes, scope))
    head, *rest = whole.split(">")
    yield ">".join([head, *(part.lstrip() if part.lstrip().startswith("<") else part for part in rest)])


def _filtered(name: str, parameter: Evaluate | None, nodes: list[Node], scope: Scope) -> Iterator[str]:
    whole = "".join(_run(nodes, scope))
    yield text(apply(name, whole, parameter(scope) if parameter else None, scope.budget))


def _first_true(choices: list[Evaluate], scope: Scope) -> Iterator[str]:
    for choice in choices:
        found = choice(scope)
        if is_true(found):
            yield escaped(found) if scope.escapes else text(found)
            return
