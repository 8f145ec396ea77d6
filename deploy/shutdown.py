"""Stop all instances in their order, then the services: what a host does before it goes down.

What ran starts again with the next start of Podium. The supervisor does this on SIGPWR, as LXD does.
"""

from __future__ import annotations

from core.settings import Settings
from deploy.down import stop
from deploy.rest import RestError, stop_instances


def shutdown(settings: Settings) -> int:
    try:
        failed = stop_instances(settings.socket_path)
    except (RestError, OSError) as exc:
        print(f"Instances were not stopped: {exc}")
        return 1
    for line in failed:
        print(f"not stopped: {line}")
    stop(settings)
    print("Stopped; what ran starts again with Podium.")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(shutdown(Settings.from_env()))
