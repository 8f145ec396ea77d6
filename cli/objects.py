"""What networks, storage pools, profiles and projects have in common: list, show, get, set, edit, delete."""

from __future__ import annotations

from typing import Any

from cli import tables
from cli.call import Call, current_project
from cli.documents import dump
from cli.kinds import KINDS, Kind, arranged, document, edit_document, place, unset_key, update
from cli.server import url

_HEADERS = {
    "network": ("NAME", "TYPE", "MANAGED", "IPV4", "IPV6", "DESCRIPTION", "USED BY", "STATE"),
    "storage": ("NAME", "DRIVER", "SOURCE", "DESCRIPTION", "USED BY", "STATE"),
    "profile": ("NAME", "DESCRIPTION", "USED BY"),
    "project": ("NAME", "IMAGES", "PROFILES", "STORAGE VOLUMES", "NETWORKS", "DESCRIPTION", "USED BY"),
}

# Links of the host that no container can use; a table without them is what the stock client prints.
_UNLISTED = ("loopback", "unknown")


def _kind(call: Call) -> Kind:
    return KINDS[call.kind]


def listing(call: Call) -> None:
    found = call.server.get(url(_kind(call).place), recursion="1")
    found.sort(key=lambda item: tables.natural(item["name"]))
    rows = [_row(call, item) for item in found if item.get("type") not in _UNLISTED]
    shown = [arranged(_kind(call), item) for item in found]
    tables.show(call.text("format"), _HEADERS[call.kind], rows, shown)


def _row(call: Call, item: dict[str, Any]) -> list[str]:
    name, config, used = item["name"], item["config"], str(len(item["used_by"] or []))
    if call.kind == "network":
        managed = "YES" if item["managed"] else "NO"
        addresses = [config.get("ipv4.address", ""), config.get("ipv6.address", "")]
        return [name, item["type"], managed, *addresses, item["description"], used, item["status"].upper()]
    if call.kind == "storage":
        return [
            name,
            item["driver"],
            config.get("source", ""),
            item["description"],
            used,
            item["status"].upper(),
        ]
    if call.kind == "profile":
        return [name, item["description"], used]
    current = call.text("project") or current_project() or "default"
    features = [f"features.{key}" for key in ("images", "profiles", "storage.volumes", "networks")]
    flags = ["YES" if config.get(key) == "true" else "NO" for key in features]
    return [f"{name} (current)" if name == current else name, *flags, item["description"], used]


def show(call: Call) -> None:
    path = place(_kind(call), call.words[0])
    if call.on("resources"):
        print(dump(call.server.get(path + "/resources")), end="")
        return
    print(document(_kind(call), call.server.get(path)), end="")


def get(call: Call) -> None:
    found = call.server.get(place(_kind(call), call.words[0]))
    print(found["config"].get(call.words[1], ""))


def set(call: Call) -> None:
    name, *words = call.words
    pairs = call.assignments(words)
    update(call.server, _kind(call), name, lambda body: body["config"].update(pairs))


def unset(call: Call) -> None:
    unset_key(call.server, _kind(call), *call.words)


def edit(call: Call) -> None:
    edit_document(call.server, _kind(call), call.words[0])


def create(call: Call) -> None:
    name, *words = call.words
    body: dict[str, Any] = {"name": name, "config": call.pairs([*words, *call.texts("config")])}
    if call.text("type"):
        body["type"] = call.text("type")
    _post(call, body)


def create_pool(call: Call) -> None:
    name, driver, *words = call.words
    _post(call, {"name": name, "driver": driver, "config": call.pairs(words)})


def _post(call: Call, body: dict[str, Any]) -> None:
    call.server.send("POST", url(_kind(call).place), body, doing=f"Creating {body['name']}")
    call.say(f"{_kind(call).noun} {body['name']} created")


def rename(call: Call) -> None:
    old, new = call.words
    call.server.send("POST", place(_kind(call), old), {"name": new}, doing=f"Renaming {old}")
    call.say(f"{_kind(call).noun} {old} renamed to {new}")


def delete(call: Call) -> None:
    name = call.words[0]
    call.server.send("DELETE", place(_kind(call), name), doing=f"Deleting {name}")
    call.say(f"{_kind(call).noun} {name} deleted")
