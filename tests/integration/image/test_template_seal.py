"""The process that renders templates, if its interpreter were broken out of."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SEALED = """
import os, socket, json
from services.image.templates.sealed import limit, seal
limit(memory=512 << 20, cpu_s=2)
seal()
os.write(1, b"sealed")
{attempt}
os.write(1, b"escaped")
"""


@pytest.mark.parametrize(
    "attempt",
    [
        'os.open("/etc/passwd", os.O_RDONLY)',
        "socket.socket(socket.AF_UNIX)",
        "os.fork()",
        'os.execv("/bin/true", ["true"])',
        "os.kill(os.getppid(), 9)",
        "os.setuid(0)",
        "while True: pass",
    ],
)
def test_it_can_compute_and_nothing_else(attempt: str) -> None:
    """The kernel ends it at the first call that computing does not need, or when its time is over."""
    code = _SEALED.format(attempt=attempt)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=False)

    assert done.stdout == b"sealed"
    assert done.returncode < 0
