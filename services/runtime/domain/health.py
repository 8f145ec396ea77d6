"""What is checked of a running instance, and what the answers make of it. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

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
    if not any(config.get(f"health.{kind}") for kind in ("exec", "tcp", "http")):
        return None  # at once: this is asked of every instance at every change
    base = Check(
        interval_s=_number(config, "interval"),
        timeout_s=_number(config, "timeout"),
        retries=_number(config, "retries"),
        start_period_s=_number(config, "start_period"),
        restarts=INSTANCE.get(config, "health.action") == "restart",
    )
    if command := config.get("health.exec"):
        return replace(base, command=tuple(shlex.split(command)))
    if port := config.get("health.tcp"):
        return replace(base, port=int(port))
    if target := config.get("health.http"):
        number, path = parse_http_target(target)
        return replace(base, port=number, path=path)
    return None


def _number(config: Mapping[str, str], name: str) -> int:
    return int(INSTANCE.get(config, f"health.{name}"))


def after(check: Check, health: Health, *, is_good: bool, age_s: float) -> Health:
    """Return the health after an answer. While an instance starts, bad answers prove nothing."""
    if is_good:
        return Health(HEALTHY)
    if health.status == STARTING and age_s < check.start_period_s:
        return health
    failures = health.failures + 1
    return Health(UNHEALTHY if failures >= check.retries else health.status, failures)
