"""`podium config metadata` and `podium config template`: what an instance has beside its root."""

from __future__ import annotations

import sys

from cli import tables
from cli.call import Call
from cli.documents import dump, edit, in_editor, load_map, ordered
from cli.server import Upload, url

_FIELDS = ("architecture", "creation_date", "expiry_date", "properties", "templates")
_BYTES = {"Content-Type": "application/octet-stream"}


def show_metadata(call: Call) -> None:
    print(_document(call), end="")


def edit_metadata(call: Call) -> None:
    path = url("instances", call.words[0], "metadata")
    edit(_document(call), lambda text: call.server.send("PUT", path, load_map(text)))


def _document(call: Call) -> str:
    found = call.server.get(url("instances", call.words[0], "metadata"))
    return dump(ordered({key: {} if value is None else value for key, value in found.items()}, _FIELDS))


def listing(call: Call) -> None:
    names = call.server.get(_place(call))
    tables.show(call.text("format"), ("FILENAME",), [[name] for name in names], names)


def show(call: Call) -> None:
    sys.stdout.write(_read(call))


def create(call: Call) -> None:
    _write(call, "")


def change(call: Call) -> None:
    if not sys.stdin.isatty():
        _write(call, sys.stdin.read())
        return
    _write(call, in_editor(_read(call), ".tpl"))


def delete(call: Call) -> None:
    call.server.send("DELETE", _place(call), path=call.words[1])


def _place(call: Call) -> str:
    return url("instances", call.words[0], "metadata", "templates")


def _read(call: Call) -> str:
    with call.server.stream("GET", _place(call), path=call.words[1]) as reply:
        return reply.read().decode(errors="replace")


def _write(call: Call, text: str) -> None:
    data = text.encode(errors="surrogateescape")
    body = Upload(iter([data]), len(data))
    with call.server.stream("POST", _place(call), body, headers=_BYTES, path=call.words[1]):
        pass
