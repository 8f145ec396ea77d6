"""Whether and when an instance that ended is started again. Pure.

All that decides is in the records, so a service that was killed meanwhile comes to the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from core.configkeys.instance import INSTANCE
from core.records import InstanceObserved

# How it ended: because somebody wanted it, by its own will, by an accident, or since it was unhealthy.
ASKED, CLEAN, FAILED, UNHEALTHY = "asked", "clean", "failed", "unhealthy"
_ENDS = {"no": (), "on-failure": (FAILED,), "always": (CLEAN, FAILED)}


@dataclass(frozen=True)
class Policy:
    """mode: no, on-failure or always. attempts: most in a row, 0 for no bound. Times in seconds."""

    mode: str
    initial_s: int
    max_s: int
    reset_s: int
    attempts: int


def policy(config: Mapping[str, str]) -> Policy:
    """Return what the keys of an expanded configuration say."""
    names = ("backoff.initial", "backoff.max", "backoff.reset", "attempts")
    return Policy(
        INSTANCE.get(config, "restart.policy"), *(int(INSTANCE.get(config, f"restart.{n}")) for n in names)
    )


def due(wanted: Policy, observed: InstanceObserved) -> float | None:
    """Return the time at which a stopped instance is to be started again; None for not at all.

    What was found unhealthy was ended to be started again, whatever the policy.
    """
    if observed.status != "stopped" or observed.ended not in (*_ENDS[wanted.mode], UNHEALTHY):
        return None
    if wanted.attempts and observed.restarts >= wanted.attempts:
        return None
    return observed.ended_at + min(wanted.initial_s << min(observed.restarts, 30), wanted.max_s)


def ended(wanted: Policy, observed: InstanceObserved, how: str, at: float) -> InstanceObserved:
    """Return what is recorded of an instance that ended. One that ran for long enough begins anew."""
    has_lasted = at - observed.last_used_at >= wanted.reset_s
    return replace(
        observed, ended=how, ended_at=at, health="", restarts=0 if has_lasted else observed.restarts
    )
