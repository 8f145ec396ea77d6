"""`podium list`."""

from __future__ import annotations

from typing import Any

from cli import columns, tables
from cli.call import Call
from cli.filters import is_shown
from cli.server import Server, url


def instances(call: Call) -> None:
    wanted = _columns(call)
    format = call.text("format", "table")
    if format not in tables.FORMATS:
        raise call.misuse(f"there is no format {format!r}", f"formats are {', '.join(tables.FORMATS)}")
    if call.on("watch"):
        from cli.watching import follow

        follow(call, lambda: _show(call, wanted, format))
        return
    _show(call, wanted, format)


def _show(call: Call, wanted: list[columns.Column], format: str) -> None:
    needs_ip = any(text.startswith(("ipv4=", "ipv6=")) for text in call.words)
    is_full = needs_ip or format in ("json", "yaml") or any(column.needs_state for column in wanted)
    found = _fetch(call.server, is_full=is_full, all_projects=call.on("all-projects"))
    shown = [item for item in found if is_shown(item, call.words)]
    rows = [[column.fill(item) for column in wanted] for item in shown]
    tables.show(format, [column.title for column in wanted], rows, [_sorted(item) for item in shown])


def _sorted(item: dict[str, Any]) -> dict[str, Any]:
    """Return the instance with its maps in order, which two equal answers need not have in common."""
    maps = ("config", "devices", "expanded_config", "expanded_devices")
    return {key: _by_key(value) if key in maps else value for key, value in item.items()}


def _by_key(value: Any) -> Any:
    return {key: _by_key(value[key]) for key in sorted(value)} if isinstance(value, dict) else value


def _columns(call: Call) -> list[columns.Column]:
    if call.on("fast") and call.text("columns"):
        raise call.misuse("--fast and --columns do not go together", "--fast is a choice of columns")
    text = call.text("columns") or (columns.FAST if call.on("fast") else columns.DEFAULT)
    found = columns.parse(text)
    if call.on("all-projects") and not call.text("columns"):
        found.insert(0, columns.COLUMNS["e"])
    return found


def _fetch(server: Server, *, is_full: bool, all_projects: bool) -> list[dict[str, Any]]:
    query = {"recursion": "2" if is_full else "1"}
    if all_projects:
        query["all-projects"] = "true"
    found: list[dict[str, Any]] = server.get(url("instances"), **query)
    return found
