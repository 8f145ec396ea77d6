"""`podium diff`: how an instance differs from its profiles, a snapshot, its last version or a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cli.call import Call
from cli.documents import load_map
from cli.server import Server, url

_FIELDS = ("name", "architecture", "config", "description", "devices", "ephemeral", "profiles")
_OURS = ("volatile.", "image.")


def diff(call: Call) -> int:
    """Print what differs; 1 where something does, as diff(1)."""
    name, other = call.words[0], call.word(1)
    found = call.server.get(url("instances", name))
    lines = compared(*_sides(call, found, other))
    print("\n".join(lines) if lines else "no difference")
    return 1 if lines else 0


def _sides(call: Call, found: dict[str, Any], other: str) -> tuple[dict[str, Any], dict[str, Any]]:
    server, name = call.server, call.words[0]
    if profile := call.text("profile"):
        layer = server.get(url("profiles", profile))
        keys = {key: found.get(key) for key in ("config", "devices")}
        return {key: layer[key] for key in keys}, keys
    if snapshot := call.text("snapshot"):
        was = server.get(url("instances", name, "snapshots", snapshot))
        return spec({**was, "name": name}), spec(found)  # its own name is no difference
    if call.on("previous"):
        return spec(server.get(url("instances", name, "previous"))), spec(found)
    if other:
        with open(other, encoding="utf-8") as file:
            wanted = load_map(file.read())
        return spec(found, wanted), spec(wanted)
    return inherited(server, found), {key: found[key] for key in ("config", "devices")}


def spec(found: Mapping[str, Any], like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {key: found[key] for key in _FIELDS if key in found and (like is None or key in like)}


def inherited(server: Server, found: dict[str, Any]) -> dict[str, Any]:
    """Return what the instance would be by its profiles alone, of those keys that it sets itself."""
    config: dict[str, str] = {}
    devices: dict[str, Any] = {}
    for profile in found["profiles"]:
        layer = server.get(url("profiles", profile))
        config |= layer["config"]
        devices |= layer["devices"]
    return {
        "config": {key: value for key, value in config.items() if key in found["config"]},
        "devices": {key: value for key, value in devices.items() if key in found["devices"]},
    }


def compared(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return lines: - what is not any more, + what is now. Maps are compared key by key."""
    lines = []
    for key in sorted({*before, *after}):
        if key.startswith(_OURS) and prefix.endswith("config."):
            continue
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old or {}, dict) and isinstance(new or {}, dict):
            lines += compared(old or {}, new or {}, f"{prefix}{key}.")
            continue
        lines += [f"- {prefix}{key}: {_shown(old)}"] if old is not None else []
        lines += [f"+ {prefix}{key}: {_shown(new)}"] if new is not None else []
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).replace("\n", "\\n")
