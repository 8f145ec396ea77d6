"""`podium doctor`: what keeps this member from working, and with --fix the commands that help.

The findings are the member's own warnings: it looks every few seconds. A command runs without a shell, and
only if it is of a program that changes what a finding can be about.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from typing import Any, NamedTuple

from cli.call import Call
from cli.failure import CliError
from cli.server import url

_PROGRAMS = ("sysctl", "iptables", "ip6tables", "nft", "modprobe")
_OURS = ("podium", "network", "set")
_RUN = re.compile(r"^(?P<what>.*?) ?Run: (?P<commands>[^\n]+)$", re.DOTALL)


class Finding(NamedTuple):
    """commands: what would mend it, as argument lists; empty where only a person can."""

    severity: str
    type: str
    about: str
    what: str
    commands: tuple[tuple[str, ...], ...]


def doctor(call: Call) -> None:
    findings = [
        finding(warning) for warning in call.server.get(url("warnings"), recursion="1") if _is_open(warning)
    ]
    for number, found in enumerate(findings, 1):
        print("\n".join(described(number, found)))
    if not findings:
        call.say("Nothing is in the way.")
    elif call.on("fix"):
        _fix(call, findings)
    elif any(found.commands for found in findings):
        call.say("\npodium doctor --fix runs these commands.")


def _is_open(warning: dict[str, Any]) -> bool:
    return str(warning["status"]).lower() != "resolved"


def finding(warning: dict[str, Any]) -> Finding:
    """Return what a warning says apart from what to run."""
    text = str(warning["last_message"])
    match = _RUN.match(text)
    commands = _commands(match["commands"]) if match else ()
    what = match["what"].strip() if match and commands else text
    about = str(warning["entity_url"]).removeprefix("/1.0/")
    return Finding(str(warning["severity"]), str(warning["type"]), about, what, commands)


def _commands(text: str) -> tuple[tuple[str, ...], ...]:
    """Return the commands of "a b && c d"; none at all if one is of a program that has no business here."""
    try:
        found = tuple(tuple(shlex.split(part)) for part in text.split("&&"))
    except ValueError:
        return ()
    return found if all(_is_fit(argv) for argv in found) else ()


def _is_fit(argv: tuple[str, ...]) -> bool:
    return argv[:1] in [(name,) for name in _PROGRAMS] or argv[:3] == _OURS


def described(number: int, found: Finding) -> list[str]:
    about = f" ({found.about})" if found.about else ""
    lines = [f"{number}. [{found.severity}] {found.type}{about}", f"   {found.what}"]
    return lines + [f"   $ {shlex.join(argv)}" for argv in found.commands]


def _fix(call: Call, findings: list[Finding]) -> None:
    if os.geteuid() != 0:
        raise CliError("nothing was mended", "the commands need root", "sudo podium doctor --fix")
    failed = 0
    for argv in dict.fromkeys(argv for found in findings for argv in found.commands):
        print(f"$ {shlex.join(argv)}", flush=True)
        program = sys.argv[0] if argv[:3] == _OURS else argv[0]
        failed += subprocess.run([program, *argv[1:]], check=False, stdin=subprocess.DEVNULL).returncode != 0
    if failed:
        raise CliError(f"{failed} commands failed", "what they said stands above", "podium doctor")
    call.say("Done; what is mended disappears from podium doctor within 15 seconds.")
