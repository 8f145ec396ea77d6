"""Text of a template to pieces: text, {{ expressions }} and {% tags %}. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from services.image.templates.values import TemplateError

_OPEN = re.compile(r"\{% verbatim %\}|\{#|\{\{-?|\{%-?")
_CODE = re.compile(
    r"""(?P<space>[ \r\t]+)
    |(?P<close>-?\}\}|-?%\})
    |(?P<word>[0-9]*[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>[0-9]+)
    |(?P<string>"(?:[^"\\\n]|\\["\\])*"|'(?:[^'\\\n]|\\["\\])*')
    |(?P<symbol>==|>=|<=|&&|\|\||!=|<>|[()+\-*<>/^,.!|:=%])""",
    re.VERBOSE,
)
_END_VERBATIM = "{% endverbatim %}"
_BLANKS = " \n\r\t"
_KEYWORDS = frozenset({"in", "and", "or", "not", "true", "false", "as", "export"})


@dataclass(frozen=True)
class Token:
    """kind: word, keyword, number, string or symbol."""

    kind: str
    text: str
    line: int


@dataclass
class Piece:
    """kind: text, expression or tag."""

    kind: str
    line: int
    text: str = ""
    tokens: list[Token] = field(default_factory=list)


def split(source: str) -> list[Piece]:
    """Raises: TemplateError."""
    pieces: list[Piece] = []
    at, line, trims_next = 0, 1, False
    while at < len(source):
        opening = _OPEN.search(source, at)
        end = opening.start() if opening else len(source)
        text = source[at:end]
        if text:
            shown = text.lstrip(_BLANKS) if trims_next else text
            shown = shown.rstrip(_BLANKS) if opening and opening[0].endswith("-") else shown
            pieces.append(Piece("text", line, shown))
            line += text.count("\n")
        if not opening:
            break
        at, trims_next = _take(source, opening, line, pieces)
        line += source.count("\n", end, at)
    return pieces


def _take(source: str, opening: re.Match[str], line: int, pieces: list[Piece]) -> tuple[int, bool]:
    """Take what *opening* begins; return where it ends, and whether blanks after it are dropped."""
    match opening[0]:
        case "{#":
            return _comment_end(source, opening.end(), line), False
        case "{% verbatim %}":
            end = source.find(_END_VERBATIM, opening.end())
            if end < 0:
                raise TemplateError("verbatim is not closed", line)
            pieces.append(Piece("text", line, source[opening.end() : end]))
            return end + len(_END_VERBATIM), False
    return _code(source, opening, line, pieces)


def _comment_end(source: str, at: int, line: int) -> int:
    end = source.find("#}", at)
    if end < 0 or "\n" in source[at:end]:
        raise TemplateError("a {# comment #} must end on its line", line)
    return end + 2


def _code(source: str, opening: re.Match[str], line: int, pieces: list[Piece]) -> tuple[int, bool]:
    is_tag = opening[0].startswith("{%")
    piece = Piece("tag" if is_tag else "expression", line)
    at = opening.end()
    while found := _CODE.match(source, at):
        at, kind, word = found.end(), str(found.lastgroup), found[0]
        if kind == "close":
            if word.endswith("%}") != is_tag:
                raise TemplateError(f"{opening[0]} is closed by {word}", line)
            pieces.append(piece)
            return at, word.startswith("-")
        if kind != "space":
            piece.tokens.append(_token(kind, word, line))
    if at >= len(source):
        raise TemplateError(f"{opening[0]} is not closed", line)
    if source[at] == "\n":
        raise TemplateError("Newline not allowed within tag/variable.", line)
    raise TemplateError(f"{source[at]!r} is not understood within {opening[0]}", line)


def _token(kind: str, word: str, line: int) -> Token:
    if kind == "string":
        return Token(kind, word[1:-1].replace('\\"', '"').replace("\\\\", "\\"), line)
    return Token("keyword" if word in _KEYWORDS else kind, word, line)
