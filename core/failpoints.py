"""Named places where a test may kill this process, to prove that a restart mends everything.

`PODIUM_FAILPOINT=story.step.before|after` makes the process SIGKILL itself there, once per start.
"""

from __future__ import annotations

import os
import signal

_ARMED = os.environ.get("PODIUM_FAILPOINT", "")


def failpoint(name: str) -> None:
    """Die here if the environment asked for it."""
    if _ARMED and name == _ARMED:
        os.kill(os.getpid(), signal.SIGKILL)
