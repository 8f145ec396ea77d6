"""What only projects do: become the current one, and show limits and usage."""

from __future__ import annotations

import os

from cli import tables
from cli.call import Call, conf_path
from cli.server import url
from cli.texts import binary_size

_IN_BYTES = ("disk", "memory")


def switch(call: Call) -> None:
    """Keep the project for later commands, in the caller's own configuration folder."""
    name = call.words[0]
    call.server.get(url("projects", name))
    path = conf_path()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(name + "\n")


def info(call: Call) -> None:
    found = call.server.get(url("projects", call.words[0], "state"))
    rows = [[name.upper(), *_amounts(name, item)] for name, item in found["resources"].items()]
    tables.show(call.text("format"), ("RESOURCE", "LIMIT", "USAGE"), rows, found)


def _amounts(name: str, item: dict[str, int]) -> list[str]:
    def text(value: int) -> str:
        return binary_size(value) if name in _IN_BYTES else str(value)

    limit = int(item["Limit"] if "Limit" in item else item["limit"])
    usage = int(item["Usage"] if "Usage" in item else item["usage"])
    return ["UNLIMITED" if limit < 0 else text(limit), text(usage)]
