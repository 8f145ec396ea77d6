"""`make down`: stop the services; containers and their networks go on."""

from __future__ import annotations

import os
import signal
import time

from core.settings import Settings
from deploy.supervisor import end_leftovers, find_running

_WAIT_S = 40.0


def stop(settings: Settings) -> bool:
    """Stop the supervisor and what it runs; return whether it ran."""
    pid = find_running(settings)
    if not pid:
        return end_leftovers(settings)
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + _WAIT_S
    while find_running(settings) == pid:  # another may have been started meanwhile
        if time.monotonic() > end:
            raise SystemExit(
                f"The supervisor (pid {pid}) does not stop; see its log in {settings.state_dir}/logs"
            )
        time.sleep(0.05)
    return True


def main() -> int:
    settings = Settings.from_env()
    print("Stopped; containers keep running." if stop(settings) else "Podium was not running.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
