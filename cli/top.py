"""`podium top`: what running instances use, once a second."""

from __future__ import annotations

import signal
import sys
import time
from typing import Any, NamedTuple

from cli import tables
from cli.call import Call
from cli.filters import is_shown
from cli.server import url
from cli.texts import binary_size, size

_HEADER = ("NAME", "CPU", "MEMORY", "PROCESSES", "DISK", "RECEIVED/s", "SENT/s")
_CLEAR = "\x1b[H\x1b[J"
_SORTS = ("cpu", "memory", "name", "processes", "received", "sent")


class Figures(NamedTuple):
    """What one instance has used up to a moment: nanoseconds and bytes."""

    name: str
    cpu: int
    memory: int
    processes: int
    disk: int
    received: int
    sent: int


class Rates(NamedTuple):
    """What it uses now. cpu: percent of one processor; received, sent: bytes a second."""

    name: str
    cpu: float
    memory: int
    processes: int
    disk: int
    received: float
    sent: float


def watch(call: Call) -> None:
    order = call.text("sort", "cpu")
    if order not in _SORTS:
        raise call.misuse(f"there is no order {order!r}", f"orders are {', '.join(_SORTS)}")
    pause_s = max(1, call.number("delay", 1))
    rounds = call.number("count", 0)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    before, at = _look(call), time.monotonic()
    while True:
        time.sleep(pause_s)
        now, then = _look(call), time.monotonic()
        _draw(_ordered(rates(before, now, then - at), order))
        before, at, rounds = now, then, rounds - 1
        if not rounds:
            return


def _look(call: Call) -> dict[str, Figures]:
    query = {"recursion": "2"} | ({"all-projects": "true"} if call.on("all-projects") else {})
    found = [item for item in call.server.get(url("instances"), **query) if is_shown(item, call.words)]
    running = [item for item in found if (item.get("state") or {}).get("pid")]
    return {f"{item['project']}/{item['name']}": figures(item) for item in running}


def figures(item: dict[str, Any]) -> Figures:
    state = item["state"]
    networks = [n for n in (state.get("network") or {}).values() if n["type"] != "loopback"]
    return Figures(
        item["name"],
        state["cpu"]["usage"],
        state["memory"]["usage"],
        state["processes"],
        sum(disk["usage"] for disk in (state.get("disk") or {}).values()),
        sum(n["counters"]["bytes_received"] for n in networks),
        sum(n["counters"]["bytes_sent"] for n in networks),
    )


def rates(before: dict[str, Figures], now: dict[str, Figures], seconds: float) -> list[Rates]:
    """Return what each uses; one that began meanwhile is measured from its beginning."""
    found = []
    for key, figure in now.items():
        old = before.get(key)
        # Counters that fell are of an instance that was started again.
        if old is None or figure.cpu < old.cpu:
            old = figure._replace(cpu=0, received=0, sent=0) if old else figure
        found.append(
            Rates(
                figure.name,
                (figure.cpu - old.cpu) / 1e7 / seconds,
                figure.memory,
                figure.processes,
                figure.disk,
                max(0, figure.received - old.received) / seconds,
                max(0, figure.sent - old.sent) / seconds,
            )
        )
    return found


def _ordered(found: list[Rates], order: str) -> list[Rates]:
    if order == "name":
        return sorted(found, key=lambda rate: tables.natural(rate.name))
    return sorted(found, key=lambda rate: (-float(getattr(rate, order)), rate.name))


def _draw(found: list[Rates]) -> None:
    rows = [
        [
            rate.name,
            f"{rate.cpu:.1f}%",
            binary_size(rate.memory),
            str(rate.processes),
            binary_size(rate.disk) if rate.disk else "",
            size(rate.received),
            size(rate.sent),
        ]
        for rate in found
    ]
    if sys.stdout.isatty():
        sys.stdout.write(_CLEAR)
    tables.show("compact", _HEADER, rows, [], is_sorted=False)
    sys.stdout.flush()
