"""`podium explain`: what an instance is set to and by whom, what it is doing, and why it is not running."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cli.call import Call
from cli.server import Server, url
from cli.tables import natural
from cli.texts import long_time, short_time

_LONGEST = 60
_HIDDEN = ("volatile.", "image.")
_KEPT_BY = {"volatile": "Podium", "image": "its image"}


def explain(call: Call) -> None:
    name, server = call.words[0], call.server
    instance = server.get(url("instances", name))
    profiles = [server.get(url("profiles", profile)) for profile in instance["profiles"]]
    lines = [f"{name}: {doing(instance, _operations(server, name), _last_words(server, instance))}"]
    lines += ["", "Configuration, and where each value comes from:"]
    lines += _table(sources(instance, profiles, "config", with_hidden=call.on("all"))) or ["  (none)"]
    lines += ["", "Devices:"]
    lines += _table(device_sources(instance, profiles)) or ["  (none)"]
    print("\n".join(lines))


def _operations(server: Server, name: str) -> list[dict[str, Any]]:
    """Return what the server still knows to have been done with the instance, the latest first."""
    groups = server.get(url("operations"), recursion="1")
    found = [item for group in groups.values() for item in group]
    mine = [item for item in found if _is_about(item, name)]
    return sorted(mine, key=lambda item: str(item["updated_at"]), reverse=True)


def _is_about(operation: Mapping[str, Any], name: str) -> bool:
    urls = [path for paths in (operation.get("resources") or {}).values() for path in paths or []]
    return any(path.partition("?")[0] == f"/1.0/instances/{name}" for path in urls)


def _last_words(server: Server, instance: Mapping[str, Any]) -> str:
    """Return the last error of the engine's log of an instance that does not run."""
    if instance["status"] not in ("Stopped", "Error"):
        return ""
    path = url("instances", instance["name"], "logs", "lxc.log")
    try:
        with server.stream("GET", path) as reply:
            lines = reply.read().decode(errors="replace").splitlines()
    except Exception:
        return ""  # it has never run, or its log is gone
    errors = [line for line in lines if " ERROR " in line]
    return errors[0].partition(" - ")[2] if errors else ""


def doing(instance: Mapping[str, Any], operations: list[dict[str, Any]], last_words: str) -> str:
    """Return one paragraph: state, what it waits for, and why it does not run."""
    status = str(instance["status"])
    for operation in operations:
        if operation["status"] in ("Running", "Pending"):
            return f"{status}; waits for: {operation['description'].lower()} (operation {operation['id']})"
    config = instance["config"]
    if status == "Ready":
        return "Running, and says that it is ready"
    if status in ("Running", "Frozen"):
        return f"{status} since {short_time(instance['last_used_at'])}"
    failed = next((o for o in operations if o["status"] == "Failure"), None)
    if failed:
        return f"{status}; {failed['description'].lower()} failed: {failed['err']}"
    if last_words:
        return f"{status}; its last start failed: {last_words}"
    never = str(instance["last_used_at"]).startswith(("0001", "1970"))
    why = "it was never started" if never else f"it last ran {long_time(instance['last_used_at'])}"
    if config.get("volatile.apply_template") and not never:
        why += "; templates are rendered at its next start"
    return f"{status}; {why}. podium start {instance['name']}"


def sources(
    instance: Mapping[str, Any], profiles: list[dict[str, Any]], field: str, *, with_hidden: bool = False
) -> list[tuple[str, str, str]]:
    """Return (key, value, where from and over what). Later profiles win, the instance over all."""
    layers = [*((f"profile {p['name']}", p[field]) for p in profiles), ("instance", instance[field])]
    found = []
    for key in sorted(instance[f"expanded_{field}"], key=natural):
        if key.startswith(_HIDDEN) and not with_hidden:
            continue
        setters = [(where, layer[key]) for where, layer in layers if key in layer]
        where = _KEPT_BY.get(key.partition(".")[0]) or (setters[-1][0] if setters else "Podium")
        hidden = [f"{other}: {_short(value)}" for other, value in setters[:-1]]
        found.append((key, _short(instance[f"expanded_{field}"][key]), where + _over(hidden)))
    return found


def device_sources(instance: Mapping[str, Any], profiles: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    layers = [*((f"profile {p['name']}", p["devices"]) for p in profiles), ("instance", instance["devices"])]
    found = []
    for name, device in sorted(instance["expanded_devices"].items()):
        setters = [where for where, devices in layers if name in devices]
        options = " ".join(f"{key}={value}" for key, value in sorted(device.items()))
        where = setters[-1] if setters else "Podium"
        found.append((name, _short(options), where + _over(setters[:-1])))
    return found


def _over(hidden: list[str]) -> str:
    return f" (over {', '.join(hidden)})" if hidden else ""


def _short(value: str) -> str:
    line = value.replace("\n", "\\n")
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _table(rows: list[tuple[str, str, str]]) -> list[str]:
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
    return [f"  {key:{widths[0]}}  {value:{widths[1]}}  {where}" for key, value, where in rows]
