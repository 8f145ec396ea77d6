"""`podium explain`, `diff`, `undo`, `logs`, `top` and `list -w`, against a running member."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Podium


@pytest.fixture(scope="module")
def made(podium: Podium) -> Iterator[Podium]:
    podium.lxc("launch", "debian/12", "seen", "-c", "limits.memory=1GiB")
    yield podium
    podium.run("delete", "-f", "seen")


def run(podium: Podium, *words: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    environment = {**podium.environment, "PODIUM_CONF": str(podium.conf)}
    argv = [sys.executable, "-m", "cli", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, env=environment, check=False)


def test_explain_names_where_values_come_from(made: Podium) -> None:
    """What is set here, what a profile sets, and what the instance is doing."""
    text = run(made, "explain", "seen").stdout
    assert text.startswith("seen: Running since")
    assert "limits.memory  1GiB  instance" in text
    assert "profile default" in text


def test_a_change_is_taken_back_and_done_again(made: Podium) -> None:
    """As an ordinary change; the limit in force follows."""
    made.lxc("config", "set", "seen", "limits.memory=2GiB")
    assert run(made, "diff", "seen", "--previous").stdout == (
        "- config.limits.memory: 1GiB\n+ config.limits.memory: 2GiB\n"
    )
    assert run(made, "undo", "seen", "--dry-run").returncode == 0
    assert made.lxc("config", "get", "seen", "limits.memory") == "2GiB\n"

    assert run(made, "undo", "seen").returncode == 0
    assert made.lxc("config", "get", "seen", "limits.memory") == "1GiB\n"
    run(made, "undo", "seen")
    assert made.lxc("config", "get", "seen", "limits.memory") == "2GiB\n"


def test_figures_and_logs(made: Podium) -> None:
    """One look at each; they go on until ctrl-c otherwise."""
    top = run(made, "top", "--count", "1")
    assert "seen" in top.stdout
    assert "%" in top.stdout
    deadline = time.monotonic() + 20
    while not run(made, "logs", "seen", "-n", "2").stdout.strip():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_a_list_is_shown_again_when_something_changed(made: Podium) -> None:
    """By the event, not by looking again and again."""
    environment = {**made.environment, "PODIUM_CONF": str(made.conf)}
    argv = [sys.executable, "-m", "cli", "list", "seen", "-w", "-f", "csv", "-c", "ns"]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        assert watching.stdout.readline() == "seen,RUNNING\n"
        made.lxc("pause", "seen")
        line = watching.stdout.readline()
        while line == "seen,RUNNING\n":
            line = watching.stdout.readline()
        watching.kill()
    assert line == "seen,FROZEN\n"
    made.lxc("start", "seen")
