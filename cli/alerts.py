"""`podium warning`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cli import tables
from cli.call import Call
from cli.documents import dump, ordered
from cli.server import url
from cli.texts import short_time

_COLUMNS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "c": ("COUNT", lambda w: str(w["count"])),
    "f": ("FIRST SEEN", lambda w: short_time(w["first_seen_at"])),
    "l": ("LAST SEEN", lambda w: short_time(w["last_seen_at"])),
    "L": ("LOCATION", lambda w: str(w["location"])),
    "p": ("PROJECT", lambda w: str(w["project"])),
    "s": ("SEVERITY", lambda w: str(w["severity"]).upper()),
    "S": ("STATUS", lambda w: str(w["status"]).upper()),
    "t": ("TYPE", lambda w: str(w["type"])),
    "u": ("UUID", lambda w: str(w["uuid"])),
}
_DEFAULT = "utSscpl"
_FIELDS = ("status", "uuid", "location", "project", "type", "count", "first_seen_at", "last_seen_at")


def listing(call: Call) -> None:
    letters = call.text("columns", _DEFAULT).replace(",", "")
    if unknown := [letter for letter in letters if letter not in _COLUMNS]:
        raise call.misuse(f"there is no column {unknown[0]!r}", f"columns are {', '.join(_COLUMNS)}")
    found = call.server.get(url("warnings"), recursion="1")
    if not call.on("all"):
        found = [item for item in found if str(item["status"]).lower() == "new"]
    rows = [[_COLUMNS[letter][1](item) for letter in letters] for item in found]
    tables.show(call.text("format"), [_COLUMNS[letter][0] for letter in letters], rows, found)


def show(call: Call) -> None:
    print(dump(ordered(call.server.get(url("warnings", call.words[0])), _FIELDS)), end="")


def acknowledge(call: Call) -> None:
    call.server.send("PUT", url("warnings", call.words[0]), {"status": "acknowledged"})


def delete(call: Call) -> None:
    names = call.words
    if call.on("all"):
        names = [item["uuid"] for item in call.server.get(url("warnings"), recursion="1")]
    elif not names:
        raise call.misuse("podium warning delete needs WARNING", "none was named; --all takes all")
    for name in names:
        call.server.send("DELETE", url("warnings", name))
