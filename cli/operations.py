"""`podium operation`."""

from __future__ import annotations

from cli import tables
from cli.call import Call
from cli.documents import dump, ordered
from cli.server import url
from cli.texts import short_time

_FIELDS = (
    "id",
    "class",
    "description",
    "created_at",
    "updated_at",
    "status",
    "status_code",
    "resources",
    "metadata",
    "may_cancel",
    "err",
    "location",
)


def listing(call: Call) -> None:
    found = [item for group in call.server.get(url("operations"), recursion="1").values() for item in group]
    rows = [
        [
            item["id"],
            item["class"].upper(),
            item["description"],
            item["status"].upper(),
            "YES" if item["may_cancel"] else "NO",
            short_time(item["created_at"]),
        ]
        for item in found
    ]
    header = ("ID", "TYPE", "DESCRIPTION", "STATUS", "CANCELABLE", "CREATED")
    tables.show(call.text("format"), header, rows, [ordered(item, _FIELDS) for item in found])


def show(call: Call) -> None:
    print(dump(ordered(call.server.get(url("operations", call.words[0])), _FIELDS)), end="")


def delete(call: Call) -> None:
    call.server.send("DELETE", url("operations", call.words[0]))
    print(f"Operation {call.words[0]} deleted")
