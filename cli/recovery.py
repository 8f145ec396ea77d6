"""`podium admin recover`: bring back what lies in pools and is not recorded, without asking."""

from __future__ import annotations

from typing import Any

from cli.call import Call
from cli.failure import CliError


def recover(call: Call) -> None:
    """Look into all pools, or one that is named with its driver and source, and record what is found."""
    pools = {"pools": _pools(call)}
    found = call.server.send("POST", "/internal/recover/validate", pools)
    lost, problems = found["UnknownVolumes"] or [], found["DependencyErrors"] or []
    for pool in found["UnknownPools"]:
        call.say(f"Storage pool {pool} is not recorded")
    for volume in lost:
        call.say(_line(volume))
    if problems:
        raise CliError(
            "nothing was recovered", "these are missing: " + "; ".join(problems), "create them first"
        )
    if not lost and not found["UnknownPools"]:
        call.say("All that lies in the pools is recorded")
    elif not call.on("dry-run"):
        call.server.send("POST", "/internal/recover/import", pools)
        call.say(f"Recovered {len(lost)} of {len(lost)}")


def _pools(call: Call) -> list[dict[str, Any]]:
    if not call.words:
        return []
    name, *rest = call.words
    pool: dict[str, Any] = {"name": name, "config": call.pairs(rest[1:])}
    return [pool | ({"driver": rest[0]} if rest else {})]


def _line(volume: dict[str, Any]) -> str:
    snapshots = f" with {volume['snapshotCount']} snapshots" if volume["snapshotCount"] else ""
    noun = "Instance" if volume["type"] == "container" else "Volume"
    return f"{noun} {volume['name']} of project {volume['project']} in pool {volume['pool']}{snapshots}"
