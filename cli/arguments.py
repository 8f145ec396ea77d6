"""What a command line means: verbs and flags as data, and the parser that reads them.

Flags may stand anywhere among the words, as in the stock client, which argparse cannot do; and a
table is read in a fraction of the time that a hundred argparse parsers take to build.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cli.failure import UsageError


class Flag(NamedTuple):
    """takes: what its value is called, and so how it is completed; empty for a switch.

    bare: the value it has when given without one (`--console`); such a flag takes `--flag=value` only.
    """

    name: str
    short: str = ""
    takes: str = ""
    about: str = ""
    bare: str = ""


class Verb(NamedTuple):
    """path: "image alias list". runs: "module:function".

    words: what may follow, such as "INSTANCE... [KEY]"; the names tell completion what they stand for.
    """

    path: str
    runs: str
    words: str
    about: str
    flags: tuple[Flag, ...] = ()
    aliases: tuple[str, ...] = ()
    more: str = ""

    @property
    def name(self) -> str:
        return self.path.rpartition(" ")[2]

    @property
    def group(self) -> str:
        return self.path.rpartition(" ")[0]


class Parsed(NamedTuple):
    """A verb, or a group of verbs that help is wanted for (verb is None)."""

    path: str
    verb: Verb | None
    words: list[str]
    options: dict[str, list[str]]


GLOBALS = (
    Flag("project", "", "PROJECT", "Use this project instead of the current one"),
    Flag("quiet", "q", "", "Show no progress"),
    Flag("verbose", "v", "", "Accepted as the stock client accepts it"),
    Flag("debug", "", "", "Show every request, and the traceback of an error"),
    Flag("force-local", "", "", "Accepted: podium always uses the local socket"),
    Flag("help", "h", "", "Print help"),
    Flag("version", "", "", "Print the version"),
)


def arity(words: str) -> tuple[int, int | None]:
    """Return the least and the most words; None for no limit.

    >>> arity("INSTANCE [KEY=VALUE...]")
    (1, None)
    """
    parts = words.split()
    least = sum(1 for part in parts if not part.startswith("["))
    return least, None if "..." in words else len(parts)


def find(verbs: Sequence[Verb], path: Sequence[str]) -> Verb | None:
    """Return the verb that *path* names, by name or alias."""
    name, group = path[-1] if path else "", list(path[:-1])
    for verb in verbs:
        if verb.group.split() == group and name in (verb.name, *verb.aliases):
            return verb
    return None


def members(verbs: Sequence[Verb], group: str) -> list[str]:
    """Return the names below *group*, sub-groups included, in the order of the table."""
    depth, prefix = len(group.split()), f"{group} " if group else ""
    names = (verb.path.split()[depth] for verb in verbs if verb.path.startswith(prefix))
    return list(dict.fromkeys(names))


def parse(verbs: Sequence[Verb], argv: Sequence[str], groups: Mapping[str, str]) -> Parsed:
    """Read *argv*. Raises: UsageError."""
    path: list[str] = []
    options: dict[str, list[str]] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word.startswith("-") and word != "-":
            _take_flag(GLOBALS, word, rest, options, " ".join(path))
            continue
        path.append(word)
        if verb := find(verbs, path):
            return _finish(verb, rest, options)
        if " ".join(path) not in groups:
            raise UsageError.unknown(path, members(verbs, " ".join(path[:-1])))
    return Parsed(" ".join(path), None, [], options)


def _finish(verb: Verb, rest: list[str], options: dict[str, list[str]]) -> Parsed:
    words: list[str] = []
    while rest:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        if word.startswith("-") and word != "-":
            _take_flag((*verb.flags, *GLOBALS), word, rest, options, verb.path)
        else:
            words.append(word.removeprefix("local:"))
    if "help" not in options:
        _check_count(verb, words)
    return Parsed(verb.path, verb, words, options)


def _check_count(verb: Verb, words: list[str]) -> None:
    least, most = arity(verb.words)
    if len(words) < least:
        needed = [word for word in verb.words.split() if not word.startswith("[")]
        missing = needed[len(words)]
        raise UsageError(
            f"podium {verb.path} needs {missing}", f"{len(words)} of {least} words were given", verb.path
        )
    if most is not None and len(words) > most:
        raise UsageError(
            f"podium {verb.path} does not take {words[most]!r}",
            f"it takes {verb.words or 'no words'}",
            verb.path,
        )


def _take_flag(
    flags: Sequence[Flag], word: str, rest: list[str], options: dict[str, list[str]], path: str
) -> None:
    if word.startswith("--"):
        name, has_value, value = word[2:].partition("=")
        flag = _named(flags, name, f"--{name}", path)
        _store(flag, value if has_value else None, rest, options, path)
        return
    cluster = word[1:]
    while cluster:
        flag = _short(flags, cluster[0], word, path)
        cluster = cluster[1:]
        if flag.takes and not flag.bare:
            _store(flag, cluster.removeprefix("=") if cluster else None, rest, options, path)
            return
        options.setdefault(flag.name, []).append(flag.bare or "true")


def _store(flag: Flag, value: str | None, rest: list[str], options: dict[str, list[str]], path: str) -> None:
    if value is None and flag.takes and not flag.bare:
        if not rest:
            raise UsageError(f"--{flag.name} needs {flag.takes}", "nothing comes after it", path)
        value = rest.pop(0)
    if not flag.takes and value not in (None, "true", "false"):
        raise UsageError(f"--{flag.name} is a switch", f"it does not take {value!r}", path)
    options.setdefault(flag.name, []).append(value if value is not None else flag.bare or "true")


def _named(flags: Sequence[Flag], name: str, shown: str, path: str) -> Flag:
    for flag in flags:
        if flag.name == name:
            return flag
    raise UsageError.unknown_flag(shown, path, [f"--{flag.name}" for flag in flags])


def _short(flags: Sequence[Flag], letter: str, word: str, path: str) -> Flag:
    for flag in flags:
        if flag.short == letter:
            return flag
    raise UsageError.unknown_flag(f"-{letter}", path, [], f"{letter!r} in {word}")


def kind_of(word: str) -> str:
    """Return what a word of a spec names: "INSTANCE" for "[INSTANCE...]"."""
    return re.sub(r"[\[\].]", "", word)
