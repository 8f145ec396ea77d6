"""Cases about instances made of instances: snapshot, restore, copy."""

from __future__ import annotations

from bench.client import Side
from bench.lifecycle import warm_up
from bench.plan import PREFIX, Plan

_SOURCE, _COPY = f"{PREFIX}source", f"{PREFIX}copy"


def make_source(side: Side, plan: Plan) -> None:
    """One that has run, so that there is something to copy."""
    warm_up(side, plan)
    side.lxc("launch", plan.alias, _SOURCE)
    side.lxc("exec", _SOURCE, "--", "sh", "-c", "dd if=/dev/urandom of=/root/some bs=1M count=16 2>&1; sync")
    side.lxc("stop", "--force", _SOURCE)


def one_copy(side: Side, plan: Plan) -> dict[str, float]:
    snapshot = side.timed("snapshot", _SOURCE, "s")
    restore = side.timed("restore", _SOURCE, "s")
    copy = side.timed("copy", _SOURCE, _COPY, "--instance-only")
    side.lxc("delete", _COPY)
    side.lxc("delete", f"{_SOURCE}/s")
    return {"snapshot": snapshot * 1000, "restore": restore * 1000, "copy": copy * 1000}
