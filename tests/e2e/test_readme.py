"""The five minutes of the README, typed as a newcomer would."""

from __future__ import annotations

import re
import subprocess

from deploy.privileges import ROOT
from tests.e2e.conftest import Podium

_SECTION = re.compile(r"^## Five minutes\n\n```\n(.*?)^```$", re.M | re.S)


def commands() -> list[str]:
    found = _SECTION.search((ROOT / "README.md").read_text())
    assert found
    return found[1].strip().splitlines()


def typed(podium: Podium, line: str) -> str:
    """Return *line* for this test's own Podium. A loaded machine may need longer than the tutorial waits."""
    text = line.replace("/var/lib/podium", str(podium.state_dir))
    if "is-system-running" not in text:
        return text
    bus = "lxc exec web -- test -S /run/dbus/system_bus_socket"
    return f"until {bus}; do sleep 0.1; done\n{text}"


def test_every_command_of_the_tutorial_works(podium: Podium) -> None:
    """The first thing that a newcomer does must not fail; `make up` has launched `first` for them."""
    podium.lxc("launch", "debian/12", "first")
    environment = {**podium.environment, "LXD_CONF": str(podium.conf)}
    script = "set -eu\n" + "\n".join(typed(podium, line) for line in commands())
    try:
        done = subprocess.run(
            ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "running" in done.stdout and "hello" in done.stdout
    finally:
        podium.run("delete", "--force", "first", "web")
