"""Whether the state of processes can be kept on this host, by CRIU, and if not why. Pure.

Measured with CRIU 4.2.1 and liblxc 5.0.2 on Linux 6.18: an instance can be written down, and not be brought
back. liblxc makes the terminal of a console inside the instance, and refuses to restore one that has it
("lxc.console.path configured on source host but not target"). CRIU itself cannot write down the namespaces in
namespaces that systemd makes for services, nor make a veth again here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MISSING = "CRIU isn't installed"
_MOST = 200
# What criu puts before its words: the time, perhaps a process, how bad it is, and where in its source.
_WHERE = re.compile(r"^\([\d.]+\)\s+(?:\d+: )?(?=Error|Warn)|^(?:Error|Warn) +(?:\([^)]*\): )?")
_CHECKED = (
    "CRIU works on this host, but liblxc can't restore an instance that has a console, as all have; "
    "stop it without its state, or take a stateless snapshot"
)


@dataclass(frozen=True)
class Checked:
    """What `criu check` ended with: its exit code, None when it took too long, and what it printed."""

    code: int | None
    output: str = ""


def obstacle(checked: Checked | None) -> str:
    """Return why no state of processes is kept; *checked* is None where there is no criu."""
    if checked is None:
        return MISSING
    if checked.code is None:
        return "CRIU doesn't work on this host: `criu check` didn't end"
    if checked.code:
        return f"CRIU doesn't work on this host: `criu check` says: {_first_error(checked.output)}"
    return _CHECKED


def not_live(obstacle: str, server: str = "") -> str:
    """Return LXD's words for a running instance that cannot be moved; *server*: whose the obstacle is."""
    where = f" on the {server} server" if server and obstacle == MISSING else ""
    return f"Unable to perform container live migration. {obstacle}{where}"


def _first_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line] or lines or ["nothing"]
    return "".join(c for c in _plain(errors[0]) if c.isprintable())[:_MOST]


def _plain(line: str) -> str:
    while (shorter := _WHERE.sub("", line)) != line:
        line = shorter
    return line
