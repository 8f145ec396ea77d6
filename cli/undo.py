"""`podium undo`: write back what an instance was before its last change, as an ordinary change."""

from __future__ import annotations

from typing import Any

from cli.call import Call
from cli.difference import compared, spec
from cli.failure import CliError, Refused
from cli.server import url
from cli.texts import short_time


def undo(call: Call) -> None:
    name = call.words[0]
    now, etag = call.server.get_tagged(url("instances", name))
    before = _before(call, name)
    lines = compared(spec(now), spec(before))
    who = f" by {before['changed_by']}" if before["changed_by"] else ""
    call.say(f"{name} was last changed at {short_time(before['changed_at'])}{who}; taking it back:")
    print("\n".join(lines) if lines else "(no difference)")
    if not call.on("dry-run"):
        _write_back(call, now, before, etag)


def _before(call: Call, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = call.server.get(url("instances", name, "previous"))
    except Refused as exc:
        if exc.status != 404 or "Instance not found" in exc.why:
            raise
        raise CliError(
            f"there is nothing to undo for {name}", exc.why, f"podium info {name}, for its snapshots"
        ) from exc
    return found


def _write_back(call: Call, now: dict[str, Any], before: dict[str, Any], etag: str) -> None:
    name = str(now["name"])
    body = {**spec(before), "config": _config(now, before)}
    body.pop("name")
    if {**spec(now), "config": _own(now)} != {**spec(before), "config": _own(before), "name": name}:
        call.server.send("PUT", url("instances", name), body, etag=etag, doing=f"Updating {name}")
    if before["name"] != name:
        call.server.send("POST", url("instances", name), {"name": before["name"]}, doing=f"Renaming {name}")


def _own(instance: dict[str, Any]) -> dict[str, str]:
    return {key: value for key, value in instance["config"].items() if not key.startswith("volatile.")}


def _config(now: dict[str, Any], before: dict[str, Any]) -> dict[str, str]:
    """Return the keys as they were, but what Podium keeps for itself as it is."""
    kept = {key: value for key, value in now["config"].items() if key.startswith("volatile.")}
    return {**_own(before), **kept}
