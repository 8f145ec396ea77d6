"""Real conflicts, each in a network namespace of its own, so that this host's traffic is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_NET_ADMIN")
ROOT = Path(__file__).resolve().parents[3]


def _alone(which: str, folder: Path) -> list[list[str]]:
    argv = ["unshare", "-n", sys.executable, "-m", "tests.integration.network.alone", which, str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_dockers_forward_policy_is_found_and_its_remedy_ends_it(tmp_path: Path) -> None:
    before, blocked, after = _alone("forward", tmp_path)
    assert (before, after) == ([], [])
    assert ["Docker drops what is forwarded by default (chain FORWARD of table ip filter)" in blocked[0]] == [
        True
    ]


def test_the_program_that_has_the_dns_port_is_named(tmp_path: Path) -> None:
    [[message]] = _alone("server", tmp_path)
    assert "python" in message
    assert "listens there: stop it" in message
