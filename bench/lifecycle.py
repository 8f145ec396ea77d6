"""Cases about an instance's life: init, start, exec, stop, delete, and many at once."""

from __future__ import annotations

import statistics
import time

from bench.client import Side
from bench.plan import PREFIX, Plan

SETTLE_S = 2.0


def warm_up(side: Side, plan: Plan) -> None:
    """Launch and delete one, so that no first-use cost is left in the rounds."""
    ensure_alias(side, plan)
    side.lxc("launch", plan.alias, f"{PREFIX}warm")
    side.lxc("delete", "--force", f"{PREFIX}warm")


def ensure_alias(side: Side, plan: Plan) -> None:
    if side.try_lxc("image", "info", plan.alias).returncode:
        side.lxc("image", "import", str(plan.image), "--alias", plan.alias)


def one_life(side: Side, plan: Plan) -> dict[str, float]:
    name = f"{PREFIX}life"
    begun = side.timed("init", plan.alias, name) + side.timed("start", name)
    time.sleep(SETTLE_S)
    execs = [side.timed("exec", name, "--", "true") for _ in range(5)]
    stopped = side.timed("stop", "--force", name)
    deleted = side.timed("delete", name)
    seconds = {"init_start": begun, "exec": statistics.median(execs), "stop": stopped, "delete": deleted}
    return {key: value * 1000 for key, value in seconds.items()}


def launch_together(side: Side, plan: Plan) -> dict[str, float]:
    """Wall time until the last of many clients, started at once, has come back."""
    commands = [("launch", plan.alias, f"{PREFIX}many-{n}") for n in range(plan.together)]
    begun = time.perf_counter()
    clients = side.start_many(*commands)
    failures = [words.decode() for words in (c.communicate(timeout=300)[1] for c in clients) if words]
    took = time.perf_counter() - begun
    broken = [c for c in clients if c.returncode]
    side.delete_all(f"{PREFIX}many-")
    if broken:
        raise RuntimeError(f"{side.name}: {len(broken)} of {len(clients)} launches failed: {failures[:1]}")
    return {"parallel": took * 1000}
