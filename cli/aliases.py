"""`podium image alias`: the names of images."""

from __future__ import annotations

from cli import tables
from cli.call import Call
from cli.documents import ordered
from cli.images import fingerprint_of
from cli.server import Server, url

_FIELDS = ("description", "target", "name", "type")


def listing(call: Call) -> None:
    found = call.server.get(url("images", "aliases"), recursion="1")
    shown = [a for a in found if all(text in a["name"] or text in a["target"] for text in call.words)]
    rows = [[a["name"], a["target"][:12], str(a["type"]).upper(), a["description"]] for a in shown]
    tables.show(
        call.text("format"),
        ("ALIAS", "FINGERPRINT", "TYPE", "DESCRIPTION"),
        rows,
        [ordered(a, _FIELDS) for a in shown],
    )


def create(call: Call) -> None:
    name, target = call.words
    body = {"name": name, "target": fingerprint_of(call.server, target), "description": ""}
    call.server.send("POST", url("images", "aliases"), body)


def delete(call: Call) -> None:
    call.server.send("DELETE", url("images", "aliases", call.words[0]))


def rename(call: Call) -> None:
    old, new = call.words
    call.server.send("POST", url("images", "aliases", old), {"name": new})


def point(server: Server, name: str, fingerprint: str) -> None:
    """Make an alias name this image, whatever it named before."""
    alias = url("images", "aliases", name)
    if server.find(alias):
        server.send("PUT", alias, {"target": fingerprint, "description": ""})
        return
    server.send("POST", url("images", "aliases"), {"name": name, "target": fingerprint, "description": ""})
