"""What a person reads when something fails, in three lines: what, why, and the next command.

Exit codes: 1 refused or failed, 2 not understood, 3 nobody answers at the socket, 130 interrupted;
`exec` passes on the code of its command.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

FAILED, MISUSED, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130

# The first pattern that is found in the reason decides; {0} is the first word of the command line.
_NEXT = (
    (r"(?i)already running", "podium restart {0}"),
    (r"(?i)already stopped|is not running", "podium start {0}"),
    (r"(?i)is frozen", "podium start {0}"),
    (r"(?i)currently running", "podium delete --force {0}"),
    (r"(?i)instance.*not found|no such instance", "podium list"),
    (
        r"(?i)image not found|alias.*not found|invalid fingerprint",
        "podium image list, or podium image build debian 12",
    ),
    (r"(?i)profile.*not found", "podium profile list"),
    (r"(?i)network.*not found", "podium network list"),
    (r"(?i)storage pool.*not found", "podium storage list"),
    (r"(?i)project.*not found", "podium project list"),
    (r"(?i)operation not found", "podium operation list"),
    (r"(?i)token not found|certificate not found", "podium config trust list"),
    (r"(?i)not currently set", "podium config show {0}, for the keys that are set"),
    (r"(?i)unknown configuration key.*\(server\)", "podium config set {0} KEY=VALUE, if {0} is an instance"),
    (r"(?i)unknown configuration key", "podium config show {0}, for the keys that are set"),
    (r"(?i)device doesn't exist", "podium config device list {0}"),
    (r"(?i)no such file or directory", "podium exec {0} -- ls -la, or --create-dirs when pushing"),
    (r"(?i)is a directory", "a target that ends in /, to push into the folder"),
    (r"(?i)etag|precondition", "the same command again: somebody else changed it meanwhile"),
    (r"(?i)already exists|already in use", "another name, or delete the old one first"),
    (r"(?i)command not found", "podium exec {0} -- sh -c 'echo $PATH'"),
)


class CliError(Exception):
    """Ends the command; *next* is what to try."""

    code = FAILED

    def __init__(self, what: str, why: str, next: str) -> None:
        super().__init__(f"{what}: {why}")
        self.what, self.why, self.next = what, why, next

    def lines(self) -> str:
        return render(self.what, self.why, self.next)


class UsageError(CliError):
    """The command line was not understood; *path* names the verb whose help is of use."""

    code = MISUSED

    def __init__(self, what: str, why: str, path: str) -> None:
        super().__init__(what, why, f"podium {path} --help".replace("  ", " "))

    @classmethod
    def unknown(cls, path: Sequence[str], known: Sequence[str]) -> UsageError:
        near = _nearest(path[-1], known)
        where = " ".join(["podium", *path[:-1]])
        error = cls(f"{where} has no command {path[-1]!r}", f"it has {', '.join(known)}", " ".join(path[:-1]))
        if near:
            error.next = f"{where} {near}"
        return error

    @classmethod
    def unknown_flag(cls, flag: str, path: str, known: Sequence[str], why: str = "") -> UsageError:
        near = _nearest(flag, known)
        error = cls(f"unknown flag {flag}", why or f"podium {path} has no such flag".replace("  ", " "), path)
        if near:
            error.next = f"podium {path} {near}"
        elif path == "exec":
            error.next = "podium exec NAME -- COMMAND, with -- before the command"
        return error


class Unreachable(CliError):
    code = UNREACHABLE


class Refused(CliError):
    """The server said no. status is its HTTP code."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__("the server refused", reason, "")
        self.status = status


def explain(error: Refused, path: str, words: Sequence[str]) -> str:
    """Return the three lines for an answer of the server."""
    about = " ".join(["podium", path, *words[:2]]) + (" …" if len(words) > 2 else "")
    return render(f"{about} failed", error.why, next_for(error.status, error.why, path, words))


def next_for(status: int, reason: str, path: str, words: Sequence[str]) -> str:
    first = _instance(path, words)
    if status == 403:
        return "ask an administrator, or use a project you may see: podium project list"
    if status == 501:
        return "see docs/status.md for what works"
    if status == 503:
        return "the same command in a moment; if it lasts, podium up"
    for pattern, text in _NEXT:
        if re.search(pattern, reason):
            return text.format(first)
    return f"podium info {first} --show-log" if path in ("start", "restart") else f"podium {path} --help"


def _instance(path: str, words: Sequence[str]) -> str:
    """Return the word that names what the command is about."""
    place = {"file push": -1, "network attach": 1, "network detach": 1}.get(path, 0)
    return words[place].partition("/")[0] if len(words) > place else "NAME"


def render(what: str, why: str, next: str) -> str:
    """Return exactly three lines, whatever line breaks the server's sentence had."""
    one_line = [" ".join(part.split()) for part in (what, why, next)]
    return "".join(
        f"{label}: {text}\n" for label, text in zip(("Error", "Why", "Try"), one_line, strict=True)
    )


def _nearest(word: str, known: Sequence[str]) -> str:
    import difflib

    found = difflib.get_close_matches(word, known, n=1)
    return found[0] if found else ""
