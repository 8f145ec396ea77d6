"""What can be shown and edited: where each kind lives, and the order of its fields. Reads and writes them.

The orders are those of the structs of the stock client, so that `show` prints the same document.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cli.documents import dump, edit, load_map, ordered
from cli.failure import Refused
from cli.server import Server, url


class Kind(NamedTuple):
    """fields: their order in a document. writable: what may be changed."""

    noun: str
    place: str
    fields: tuple[str, ...]
    writable: tuple[str, ...]


_INSTANCE = ("architecture", "config", "devices", "ephemeral", "profiles", "stateful", "description")
_PLAIN = ("config", "description")
_IMAGE = ("auto_update", "properties", "public", "expires_at", "profiles")
_CLIENT = ("name", "type", "restricted", "projects", "certificate")
_USED = ("name", "used_by")
KINDS = {
    "instance": Kind("Instance", "instances", _INSTANCE, _INSTANCE),
    "server": Kind("Server", "", ("config",), ("config",)),
    "client": Kind("Client", "certificates", (*_CLIENT, "fingerprint"), _CLIENT),
    "image": Kind("Image", "images", _IMAGE, _IMAGE),
    "network": Kind(
        "Network", "networks", (*_PLAIN, "name", "type", "used_by", "managed", "status", "locations"), _PLAIN
    ),
    "storage": Kind(
        "Storage pool", "storage-pools", (*_PLAIN, "name", "driver", "used_by", "status", "locations"), _PLAIN
    ),
    "profile": Kind("Profile", "profiles", (*_PLAIN, "devices", *_USED), (*_PLAIN, "devices")),
    "project": Kind("Project", "projects", (*_PLAIN, *_USED), _PLAIN),
}


def place(kind: Kind, name: str) -> str:
    return url(kind.place, name) if kind.place else "/1.0"


def document(kind: Kind, found: dict[str, Any]) -> str:
    """Return the YAML that `show` prints."""
    return dump(arranged(kind, found))


def arranged(kind: Kind, found: dict[str, Any]) -> dict[str, Any]:
    return ordered(found, kind.fields)


def writable(kind: Kind, found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in kind.writable if key in found}


def update(server: Server, kind: Kind, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Read, change and write back, unless somebody else changed it in between. Raises: Refused (412)."""
    found, etag = server.get_tagged(place(kind, name))
    body = writable(kind, found)
    change(body)
    server.send("PUT", place(kind, name), body, etag=etag, doing=f"Updating {name}")


def unset_key(server: Server, kind: Kind, name: str, key: str) -> None:
    """Take a key out of a configuration. Raises: Refused where it is not set."""

    def change(body: dict[str, Any]) -> None:
        if key not in body["config"]:
            raise Refused(400, f"Can't unset key {key!r}, it's not currently set")
        del body["config"][key]

    update(server, kind, name, change)


def edit_document(server: Server, kind: Kind, name: str) -> None:
    """Let a pipe or the editor change what is writable."""
    found, etag = server.get_tagged(place(kind, name))

    def save(text: str) -> None:
        body = {**writable(kind, found), **writable(kind, load_map(text))}
        server.send("PUT", place(kind, name), body, etag=etag, doing=f"Updating {name}")

    shown = {key: value for key, value in found.items() if key in kind.fields}
    edit(f"# {kind.noun} {name}; may be changed: {', '.join(kind.writable)}\n" + document(kind, shown), save)
