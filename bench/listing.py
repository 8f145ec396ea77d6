"""Cases about reading: lists of many instances at each depth, and plain requests per second."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from bench.client import Side, UnixConnection
from bench.lifecycle import ensure_alias
from bench.plan import PREFIX, Plan

COUNTS = (1, 100, 1000)
CREATORS = 4


def stopped_lists(side: Side, plan: Plan) -> dict[str, float]:
    """Grow the number of stopped instances and read the list at each size."""
    ensure_alias(side, plan)
    found: dict[str, float] = {}
    for count in (c for c in COUNTS if c <= plan.most_stopped):
        create_up_to(side, plan, count)
        for depth in (0, 1, 2):
            found[f"list_{count}_{depth}"] = list_ms(side, depth)
    side.delete_all(PREFIX)
    return found


def create_up_to(side: Side, plan: Plan, count: int) -> None:
    missing = [f"{PREFIX}l{n}" for n in range(count)][len(side.names(f"{PREFIX}l")) :]
    with ThreadPoolExecutor(CREATORS) as pool:
        list(pool.map(lambda name: create(side, plan, name), missing))


def create(side: Side, plan: Plan, name: str, *, start: bool = False) -> None:
    """Create (and start) one over REST, without the client's own start-up."""
    source = {"type": "image", "alias": plan.alias}
    answer = side.request("POST", "/1.0/instances", {"name": name, "source": source})
    _finish(side, answer)
    if start:
        body = {"action": "start", "timeout": 30}
        _finish(side, side.request("PUT", f"/1.0/instances/{name}/state", body))


def _finish(side: Side, answer: dict[str, object]) -> None:
    if answer.get("type") == "error":
        raise RuntimeError(f"{side.name}: {answer.get('error')}")
    done = side.request("GET", f"{answer['operation']}/wait?timeout=300")
    if done["metadata"].get("err"):
        raise RuntimeError(f"{side.name}: {done['metadata']['err']}")


def list_ms(side: Side, depth: int, *, times: int = 7) -> float:
    connection = side.connect()
    try:
        took = [_get_s(connection, f"/1.0/instances?recursion={depth}") for _ in range(times)]
    finally:
        connection.close()
    return statistics.median(took) * 1000


def _get_s(connection: UnixConnection, path: str) -> float:
    begun = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"GET {path} answered {answer.status}")
    return time.perf_counter() - begun


def start_running(side: Side, plan: Plan) -> None:
    ensure_alias(side, plan)
    names = [f"{PREFIX}r{n}" for n in range(plan.running)]
    with ThreadPoolExecutor(CREATORS) as pool:
        list(pool.map(lambda name: create(side, plan, name, start=True), names))
    time.sleep(10)  # let the guests finish booting, or the list competes with them


def running_list(side: Side, plan: Plan) -> dict[str, float]:
    return {"list_running": list_ms(side, 2)}


def requests_per_second(side: Side, plan: Plan, *, seconds: float = 2.0) -> dict[str, float]:
    connection = side.connect()
    count, begun = 0, time.perf_counter()
    try:
        while time.perf_counter() - begun < seconds:
            _get_s(connection, "/1.0")
            count += 1
    finally:
        connection.close()
    return {"rps": count / (time.perf_counter() - begun)}
