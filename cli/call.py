"""One command line that is being carried out: its words, its flags and the server it talks to."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from cli.arguments import Parsed
from cli.failure import UsageError

if TYPE_CHECKING:
    from cli.server import Server


def conf_path() -> str:
    """Return the file that keeps the current project."""
    folder = os.environ.get("PODIUM_CONF") or os.path.join(
        os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "podium"
    )
    return os.path.join(folder, "project")


def current_project() -> str:
    try:
        with open(conf_path()) as file:
            return file.read().strip()
    except OSError:
        return ""


class Call:
    def __init__(self, parsed: Parsed) -> None:
        self.path = parsed.path
        self.words = parsed.words
        self._options = parsed.options

    def word(self, index: int, default: str = "") -> str:
        return self.words[index] if index < len(self.words) else default

    def on(self, flag: str) -> bool:
        return self._options.get(flag, ["false"])[-1] != "false"

    def text(self, flag: str, default: str = "") -> str:
        return self._options.get(flag, [default])[-1]

    def texts(self, flag: str) -> list[str]:
        return self._options.get(flag, [])

    def number(self, flag: str, default: int = 0) -> int:
        """Return a flag's whole number. Raises: UsageError."""
        text = self.text(flag, str(default))
        try:
            return int(text)
        except ValueError:
            raise self.misuse(f"--{flag} needs a number", f"{text!r} is none") from None

    def pairs(self, words: list[str]) -> dict[str, str]:
        """Return {"key": "value"} for key=value words. Raises: UsageError."""
        found: dict[str, str] = {}
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                raise self.misuse(f"{word!r} is not understood", "it must read KEY=VALUE")
            found[key] = value
        return found

    def misuse(self, what: str, why: str) -> UsageError:
        return UsageError(what, why, self.path)

    def assignments(self, words: list[str]) -> dict[str, str]:
        """Like pairs; a single key may also be written KEY VALUE, as it once was."""
        return self.pairs(["=".join(words)] if len(words) == 2 and "=" not in words[0] else words)

    def say(self, text: str) -> None:
        """Print what was done, unless --quiet."""
        if not self.is_quiet:
            print(text, flush=True)

    @property
    def kind(self) -> str:
        """The noun of the command: "network" for `network show`."""
        return self.path.partition(" ")[0]

    @property
    def project(self) -> str:
        """The project that was asked for, the current one, or "" for the default."""
        return self.text("project") or os.environ.get("PODIUM_PROJECT", "") or current_project()

    @property
    def is_quiet(self) -> bool:
        return self.on("quiet")

    @cached_property
    def server(self) -> Server:
        from cli.server import Server

        return Server(project=self.project, quiet=self.is_quiet, debug=self.on("debug"))
