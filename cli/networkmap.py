"""`podium network map`: networks, the instances on them and what listens for them, as text or SVG."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from cli.call import Call
from cli.server import url

_WIDTH, _ROW, _PAD = 640, 22, 14


class Node(NamedTuple):
    """A network with what is on it; rows are (kind, name, addresses)."""

    name: str
    type: str
    addresses: str
    state: str
    rows: list[tuple[str, str, str]]


def draw(call: Call) -> None:
    networks = [n for n in call.server.get(url("networks"), recursion="1") if n["managed"]]
    found = nodes(networks, call.server.get(url("network-allocations")))
    print(svg(found) if call.on("svg") else text(found), end="")


def nodes(networks: Iterable[dict[str, Any]], allocations: Iterable[dict[str, Any]]) -> list[Node]:
    """Return the networks by name, each with its users in the order of their names."""
    found = []
    rows = list(allocations)
    for network in sorted(networks, key=lambda n: str(n["name"])):
        mine = [row for row in rows if row["network"] == network["name"]]
        own = [row["addresses"] for row in mine if row["type"] == "network" and not row.get("location")]
        nat = " NAT" if any(row["nat"] for row in mine if row["type"] == "network") else ""
        found.append(
            Node(network["name"], network["type"], ", ".join(own) + nat, network["status"], _rows(mine))
        )
    return found


def _rows(allocations: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Members of a cluster have addresses of their own on overlays; instances say where they are."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in allocations:
        if row["type"] == "network" and row.get("location"):
            found.setdefault(("member", str(row["location"])), []).append(
                str(row["addresses"]).partition("/")[0]
            )
        elif row["type"] != "network":
            kind = str(row["type"]).removeprefix("network-").replace("-", " ")
            name = str(row["used_by"]).rsplit("/", 1)[-1].partition("?")[0]
            name += f" on {row['location']}" if row.get("location") else ""
            found.setdefault((kind, name), []).append(str(row["addresses"]).partition("/")[0])
    return [
        (kind, name if kind in ("instance", "member") else "", ", ".join(addresses))
        for (kind, name), addresses in sorted(
            found.items(), key=lambda item: (item[0][0] != "instance", item[0])
        )
    ]


def text(found: list[Node]) -> str:
    """Return a tree that a terminal can show."""
    if not found:
        return "There are no managed networks.\n"
    lines = ["host"]
    for number, node in enumerate(found):
        is_last = number == len(found) - 1
        state = "" if node.state == "Created" else f" [{node.state}]"
        lines.append(f"{'└' if is_last else '├'}─ {node.name} ({node.type}) {node.addresses}{state}".rstrip())
        for row, (kind, name, addresses) in enumerate(node.rows):
            branch = "└" if row == len(node.rows) - 1 else "├"
            label = " ".join(part for part in (kind, name) if part)
            lines.append(f"{' ' if is_last else '│'}  {branch}─ {label}  {addresses}")
    return "\n".join(lines) + "\n"


def svg(found: list[Node]) -> str:
    """Return the same as a picture. Names and addresses come from a server, so they are escaped."""
    y, parts = _PAD, list[str]()
    for node in found:
        height = _ROW * (len(node.rows) + 1) + _PAD
        parts.append(
            f'<rect x="{_PAD}" y="{y}" width="{_WIDTH - 2 * _PAD}" height="{height}" rx="6" '
            f'fill="{"#eef4fb" if node.state == "Created" else "#fbeeee"}" stroke="#4a6fa5"/>'
        )
        parts.append(_label(2 * _PAD, y + _ROW - 4, f"{node.name} ({node.type}) {node.addresses}", "bold"))
        for number, (kind, name, addresses) in enumerate(node.rows, 1):
            label = " ".join(part for part in (kind, name) if part)
            parts.append(_label(3 * _PAD, y + _ROW * (number + 1) - 4, label))
            parts.append(_label(_WIDTH // 2, y + _ROW * (number + 1) - 4, addresses))
        y += height + _PAD
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" font-family="monospace">'
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _label(x: int, y: int, words: str, weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" font-size="12" font-weight="{weight}">{escape(words)}</text>'
