"""What is checked of a running instance, and what the answers make of it. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from core.configkeys.instance import INSTANCE
from core.configkeys.values import parse_http_target

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"


@dataclass(frozen=True)
class Check:
    """One of command, port alone, or port and path. restarts: what becomes unhealthy is restarted."""

    command: tuple[str, ...] = ()
    port: int = 0
    path: str = ""
    interval_s: int = 30
    timeout_s: int = 5
    retries: int = 3
    start_period_s: int = 30
    restarts: bool = True


@dataclass(frozen=True)
class Health:
    """failures: how many answers in a row were bad."""

    status: str = STARTING
    failures: int = 0


def check_of(config: Mapping[str, str]) -> Check | None:
    """Return what the keys of an expanded configuration ask for; None for nothing."""
    times = {
        f"{name}_s" if name != "retries" else name: int(INSTANCE.get(config, f"health.{name}"))
        for name in ("interval", "timeout", "retries", "start_period")
    }
    restarts = INSTANCE.get(config, "health.action") == "restart"
    if command := config.get("health.exec"):
        return Check(command=tuple(shlex.split(command)), restarts=restarts, **times)
    if port := config.get("health.tcp"):
        return Check(port=int(port), restarts=restarts, **times)
    if target := config.get("health.http"):
        port_number, path = parse_http_target(target)
        return Check(port=port_number, path=path, restarts=restarts, **times)
    return None


def after(check: Check, health: Health, *, is_good: bool, age_s: float) -> Health:
    """Return the health after an answer. While an instance starts, bad answers prove nothing."""
    if is_good:
        return Health(HEALTHY)
    if health.status == STARTING and age_s < check.start_period_s:
        return health
    failures = health.failures + 1
    return Health(UNHEALTHY if failures >= check.retries else health.status, failures)
