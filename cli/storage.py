"""What only storage pools do: show who uses them and what is left."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from cli.call import Call
from cli.documents import dump
from cli.server import url
from cli.texts import binary_size


def info(call: Call) -> None:
    name = call.words[0]
    pool = call.server.get(url("storage-pools", name))
    space = call.server.get(url("storage-pools", name, "resources"))["space"]
    amount = str if call.on("bytes") else binary_size
    print(dump(describe(pool, amount(space["used"]), amount(space["total"]))), end="")


def describe(pool: dict[str, Any], used: str, total: str) -> dict[str, Any]:
    head = {"description": pool["description"], "driver": pool["driver"], "name": pool["name"]}
    return {
        "info": head | {"space used": used, "total space": total},
        "used by": grouped(pool["used_by"] or []),
    }


def grouped(paths: list[str]) -> dict[str, list[str]]:
    """Turn ["/1.0/instances/web"] into {"instances": ["web"]}."""
    found: dict[str, list[str]] = {}
    for path in paths:
        parts = [unquote(part) for part in urlsplit(path).path.split("/")[2:]]
        if len(parts) >= 2:
            kind = "volumes" if parts[0] == "storage-pools" else parts[0]
            found.setdefault(kind, []).append(parts[-1])
    return {kind: sorted(found[kind]) for kind in sorted(found)}
