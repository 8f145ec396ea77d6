"""What an image says about the one program that it is for: the part "oci" of metadata.yaml. Pure.

command (texts), cwd, uid, gid, environment (name to value), stop_signal.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping
from typing import Any

Refuse = Callable[[str], Exception]
MOST_TEXT = 64 << 10
MOST_WORDS = 1024
_MOST_ID = 2**32 - 2
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,128}")
_REAL_TIME = re.compile(r"SIGRTMIN(?:\+([0-9]{1,2}))?")


def signal_number(text: str) -> int:
    """Return the number of "SIGTERM", "TERM", "15" or "SIGRTMIN+3". Raises: ValueError."""
    name = text.strip().upper()
    if name.isdigit() and len(name) <= 2 and 0 < int(name) < signal.NSIG:
        return int(name)
    name = name if name.startswith("SIG") else f"SIG{name}"
    if found := _REAL_TIME.fullmatch(name):
        number = signal.SIGRTMIN + int(found[1] or 0)
        if number <= signal.SIGRTMAX:
            return number
    if re.fullmatch(r"SIG[A-Z0-9]{1,8}", name) and isinstance(
        found := getattr(signal, name, None), signal.Signals
    ):
        return int(found)
    raise ValueError(f"Unknown signal {text[:32]!r}")


def is_variable(name: str, value: str) -> bool:
    """Say whether a variable can be handed over: the engine's file holds it on one line."""
    return bool(_NAME.fullmatch(name)) and not any(
        ord(c) < 32 or c in "\x7f\x85\u2028\u2029" or "\ud800" <= c <= "\udfff" for c in value
    )


def checked_application(raw: Any, bad: Refuse) -> dict[str, Any]:
    """Return what is said, whole; nothing for None. Raises: what *bad* makes of a sentence."""
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise bad("oci is not a map")
    cwd = raw.get("cwd") or "/"
    if not _is_line(cwd) or not cwd.startswith("/") or ".." in cwd.split("/"):
        raise bad("the working folder of its program is not absolute")
    stop_signal = raw.get("stop_signal") or "SIGTERM"
    try:
        signal_number(str(stop_signal))
    except ValueError as exc:
        raise bad(str(exc)) from None
    return {
        "command": _words(raw.get("command"), bad),
        "cwd": cwd,
        "uid": _id(raw.get("uid"), bad),
        "gid": _id(raw.get("gid"), bad),
        "environment": _environment(raw.get("environment"), bad),
        "stop_signal": str(stop_signal),
    }


def _words(raw: Any, bad: Refuse) -> list[str]:
    words = raw or []
    if not isinstance(words, list) or len(words) > MOST_WORDS:
        raise bad("the command of its program is no list of words")
    if not all(isinstance(word, str) and "\0" not in word for word in words):
        raise bad("the command of its program has words that are none")
    if sum(map(len, words)) > MOST_TEXT:
        raise bad(f"the command of its program is longer than {MOST_TEXT} letters")
    return list(words)


def _environment(raw: Any, bad: Refuse) -> dict[str, str]:
    found = raw or {}
    if not isinstance(found, Mapping) or len(found) > MOST_WORDS:
        raise bad("the environment of its program is no map")
    if not all(isinstance(v, str) and isinstance(k, str) and is_variable(k, v) for k, v in found.items()):
        raise bad("the environment of its program has variables that cannot be set")
    return dict(found)


def _id(raw: Any, bad: Refuse) -> int:
    value = raw or 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_ID:
        raise bad("the user of its program is no id")
    return value


def _is_line(text: Any) -> bool:
    return isinstance(text, str) and len(text) <= 4096 and is_variable("x", text)
