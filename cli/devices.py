"""`config device` and `profile device`: the devices of one instance or profile."""

from __future__ import annotations

from typing import Any

from cli.call import Call
from cli.documents import dump, sorted_maps
from cli.failure import Refused
from cli.kinds import KINDS, Kind, place, update


def _kind(call: Call) -> Kind:
    return KINDS["profile" if call.kind == "profile" else "instance"]


def _read(call: Call) -> dict[str, Any]:
    devices: dict[str, Any] = call.server.get(place(_kind(call), call.words[0]))["devices"]
    return devices


def _named(devices: dict[str, Any], name: str) -> dict[str, str]:
    if name not in devices:
        raise Refused(400, "Device doesn't exist")
    device: dict[str, str] = devices[name]
    return device


def add(call: Call) -> None:
    owner, name, kind, *words = call.words
    pairs = {**call.pairs(words), "type": kind}

    def change(body: dict[str, Any]) -> None:
        if name in body["devices"]:
            raise Refused(400, f"The device already exists: {name}")
        body["devices"][name] = pairs

    update(call.server, _kind(call), owner, change)
    call.say(f"Device {name} added to {owner}")


def override(call: Call) -> None:
    """Give an instance its own copy of a profile's device, with keys changed."""
    owner, name, *words = call.words
    pairs = call.pairs(words)
    found = call.server.get(place(_kind(call), owner))
    if name in found["devices"]:
        raise Refused(400, f"The device already exists: {name}")
    device = {**_named(found["expanded_devices"], name), **pairs}
    update(call.server, _kind(call), owner, lambda body: body["devices"].update({name: device}))
    call.say(f"Device {name} overridden for {owner}")


def remove(call: Call) -> None:
    owner, *names = call.words

    def change(body: dict[str, Any]) -> None:
        for name in names:
            _named(body["devices"], name)
            del body["devices"][name]

    update(call.server, _kind(call), owner, change)
    call.say(f"Device {', '.join(names)} removed from {owner}")


def listing(call: Call) -> None:
    print("\n".join(sorted(_read(call))))


def show(call: Call) -> None:
    print(dump(sorted_maps(_read(call))), end="")


def get(call: Call) -> None:
    print(_named(_read(call), call.words[1]).get(call.words[2], ""))


def set(call: Call) -> None:
    owner, name, *words = call.words
    pairs = call.assignments(words)
    update(call.server, _kind(call), owner, lambda body: _named(body["devices"], name).update(pairs))


def unset(call: Call) -> None:
    owner, name, key = call.words

    def change(body: dict[str, Any]) -> None:
        _named(body["devices"], name).pop(key, None)

    update(call.server, _kind(call), owner, change)
