"""`podium admin shutdown`: stop all instances as for a shutdown of the host, then Podium."""

from __future__ import annotations

from cli.call import Call


def shutdown(call: Call) -> int:
    from core.settings import Settings
    from deploy import shutdown as deploy

    return deploy.shutdown(Settings.from_env())
