"""The pages that --help prints, made from the table of verbs. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cli.arguments import GLOBALS, Flag, Verb, members
from cli.verbs import GROUPS, VERBS

_ENVIRONMENT = """\
Environment: PODIUM_DIR or LXD_DIR: where the socket is (/var/lib/podium); PODIUM_PROJECT: the project.
Exit codes: 0 done, 1 refused or failed, 2 not understood, 3 nobody answers; `exec` passes on its own."""


def page(path: str, verb: Verb | None) -> str:
    return _verb_page(verb) if verb else _group_page(path)


def _group_page(path: str) -> str:
    prefix = f"{path} " if path else ""
    rows = [(name, _about(prefix + name)) for name in members(VERBS, path)]
    usage = " ".join(filter(None, ("podium", path, "COMMAND")))
    more = f"`{usage} --help` tells more about a command."
    parts = [f"{GROUPS[path]}.", f"Usage: {usage}", f"Commands:\n{_columns(rows)}", _globals(), more]
    return "\n\n".join(parts if path else [*parts, _ENVIRONMENT])


def _about(path: str) -> str:
    return GROUPS.get(path) or next(verb.about for verb in VERBS if verb.path == path)


def _verb_page(verb: Verb) -> str:
    parts = [
        f"{verb.about}.",
        f"Usage: {' '.join(filter(None, ('podium', verb.path, '[FLAGS]', verb.words)))}",
    ]
    if verb.more:
        parts.append(verb.more)
    if verb.aliases:
        parts.append(f"Also: {', '.join(verb.aliases)}")
    if verb.flags:
        parts.append(f"Flags:\n{_columns(_flag_rows(verb.flags))}")
    return "\n\n".join([*parts, _globals()])


def _globals() -> str:
    return f"Flags of every command:\n{_columns(_flag_rows(GLOBALS))}"


def _flag_rows(flags: Sequence[Flag]) -> list[tuple[str, str]]:
    return [(_flag_text(flag), flag.about) for flag in flags]


def _flag_text(flag: Flag) -> str:
    value = f"[={flag.takes}]" if flag.bare else f" {flag.takes}" if flag.takes else ""
    short = f"-{flag.short}, " if flag.short else "    "
    return f"{short}--{flag.name}{value}"


def _columns(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"  {left:{width}}  {right}" for left, right in rows)
