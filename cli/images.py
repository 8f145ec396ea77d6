"""`podium image`: what is stored, and its properties. Transfers and aliases have files of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from cli import tables
from cli.call import Call
from cli.documents import ordered
from cli.failure import Refused
from cli.kinds import KINDS, document, edit_document, update, writable
from cli.server import Server, url
from cli.texts import binary_size, long_time, parse_time, short_time

Image = dict[str, Any]
_IMAGE = KINDS["image"]
_REST = ("aliases", "architecture", "cached", "filename", "fingerprint", "size", "update_source", "type")
_TIMES = ("created_at", "last_used_at", "uploaded_at")


def fingerprint_of(server: Server, name: str) -> str:
    """Return the fingerprint an alias points to, or the (part of a) fingerprint that was given.

    Raises: Refused where it can be neither.
    """
    if alias := server.find(url("images", "aliases", name)):
        return str(alias["target"])
    if not re.fullmatch(r"[0-9a-f]{1,64}", name):
        raise Refused(404, f"Image not found: no alias and no fingerprint is {name!r}")
    return name


def _get(call: Call) -> Image:
    image: Image = call.server.get(url("images", fingerprint_of(call.server, call.words[0])))
    return image


def _alias(image: Image) -> str:
    """Return the shortest alias, and how many more there are."""
    names = sorted((alias["name"] for alias in image["aliases"] or []), key=len)
    if len(names) > 1:
        return f"{names[0]} ({len(names) - 1} more)"
    return names[0] if names else ""


COLUMNS: dict[str, tuple[str, Callable[[Image], str]]] = {
    "l": ("ALIAS", _alias),
    "L": ("ALIASES", lambda i: "\n".join(alias["name"] for alias in i["aliases"] or [])),
    "f": ("FINGERPRINT", lambda i: str(i["fingerprint"])[:12]),
    "F": ("FINGERPRINT", lambda i: str(i["fingerprint"])),
    "p": ("PUBLIC", lambda i: "yes" if i["public"] else "no"),
    "d": ("DESCRIPTION", lambda i: str(i["properties"].get("description", ""))),
    "a": ("ARCHITECTURE", lambda i: str(i["architecture"])),
    "s": ("SIZE", lambda i: binary_size(i["size"]).replace("iB", "B")),
    "t": ("TYPE", lambda i: str(i["type"]).upper()),
    "u": ("UPLOAD DATE", lambda i: long_time(i["uploaded_at"])),
}
_DEFAULT = "lfpdatsu"
_NAMES = {
    "alias": "l", "aliases": "L", "fingerprint": "f", "public": "p", "description": "d", "architecture": "a",
    "size": "s", "type": "t", "uploaded": "u",
}  # fmt: skip


def listing(call: Call) -> None:
    letters = _letters(call)
    found = [image for image in call.server.get(url("images"), recursion="1") if is_shown(image, call.words)]
    rows = [[COLUMNS[letter][1](image) for letter in letters] for image in found]
    shown = [ordered(image, (*_IMAGE.fields, *_REST, *_TIMES)) for image in found]
    tables.show(call.text("format"), [COLUMNS[letter][0] for letter in letters], rows, shown)


def _letters(call: Call) -> str:
    parts = call.text("columns", _DEFAULT).split(",")
    letters = "".join(_NAMES.get(part.lower(), part) for part in parts)
    if unknown := [letter for letter in letters if letter not in COLUMNS]:
        raise call.misuse(f"there is no column {unknown[0]!r}", f"columns are {', '.join(_NAMES)}")
    return letters


def is_shown(image: Image, filters: list[str]) -> bool:
    """Tell whether all filters fit: KEY=VALUE on properties, or a part of the fingerprint or an alias."""
    return all(_passes(image, text) for text in filters)


def _passes(image: Image, text: str) -> bool:
    key, equals, value = text.partition("=")
    if equals:
        found = image["properties"].get(key, image.get(key))
        return found is not None and str(found).lower() == value.lower()
    return image["fingerprint"].startswith(text) or any(text in a["name"] for a in image["aliases"] or [])


def info(call: Call) -> None:
    print(describe(_get(call)), end="")


def describe(image: Image) -> str:
    """Return what the stock client prints of an image."""
    lines = [f"Fingerprint: {image['fingerprint']}"]
    lines += [
        f"Size: {COLUMNS['s'][1](image)}",
        f"Architecture: {image['architecture']}",
        f"Type: {image['type']}",
    ]
    lines += [f"Public: {COLUMNS['p'][1](image)}", "Timestamps:"]
    if parse_time(image["created_at"]):
        lines += [f"    Created: {short_time(image['created_at'])}"]
    lines += [f"    Uploaded: {short_time(image['uploaded_at'])}"]
    lines += [f"    Expires: {short_time(image['expires_at'], never='never')}"]
    lines += [f"    Last used: {short_time(image['last_used_at'], never='never')}", "Properties:"]
    lines += [f"    {key}: {value}" for key, value in sorted(image["properties"].items())]
    lines += ["Aliases:", *(_alias_line(alias) for alias in image["aliases"] or [])]
    lines += [f"Cached: {'yes' if image['cached'] else 'no'}"]
    lines += [f"Auto update: {'enabled' if image['auto_update'] else 'disabled'}"]
    if image["profiles"]:
        lines += ["Profiles:", *(f"    - {name}" for name in image["profiles"])]
    return "\n".join(lines) + "\n"


def _alias_line(alias: dict[str, str]) -> str:
    return f"    - {alias['name']}" + (f" ({alias['description']})" if alias["description"] else "")


def show(call: Call) -> None:
    print(document(_IMAGE, writable(_IMAGE, _get(call))), end="")


def edit(call: Call) -> None:
    edit_document(call.server, _IMAGE, fingerprint_of(call.server, call.words[0]))


def get_property(call: Call) -> None:
    print(_get(call)["properties"].get(call.words[1], ""))


def set_property(call: Call) -> None:
    name, key, value = call.words
    _update(call, name, lambda body: body["properties"].update({key: value}))


def unset_property(call: Call) -> None:
    name, key = call.words

    def change(body: dict[str, Any]) -> None:
        body["properties"].pop(key, None)

    _update(call, name, change)


def _update(call: Call, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    update(call.server, _IMAGE, fingerprint_of(call.server, name), change)


def refresh(call: Call) -> None:
    for name in call.words:
        path = url("images", fingerprint_of(call.server, name), "refresh")
        reply = call.server.begin("POST", path)
        done = call.server.wait(reply["metadata"], doing=f"Refreshing {name}")
        was = "refreshed successfully!" if done["metadata"]["refreshed"] else "already up to date."
        print(f"Image {was}")


def delete(call: Call) -> None:
    for name in call.words:
        fingerprint = fingerprint_of(call.server, name)
        call.server.send("DELETE", url("images", fingerprint), doing=f"Deleting {name}")
