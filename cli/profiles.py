"""What only profiles do: be copied, and be given to instances and taken from them."""

from __future__ import annotations

from typing import Any

from cli.call import Call
from cli.failure import Refused
from cli.kinds import KINDS, place, update, writable
from cli.server import url


def copy(call: Call) -> None:
    source, name = call.words
    kind = KINDS["profile"]
    body = {**writable(kind, call.server.get(place(kind, source))), "name": name}
    target = {"project": call.text("target-project")} if call.text("target-project") else {}
    call.server.send("POST", url(kind.place), body, **target)


def add(call: Call) -> None:
    instance, profile = call.words
    _assign(call, instance, lambda profiles: [*profiles, profile])
    call.say(f"Profile {profile} added to {instance}")


def remove(call: Call) -> None:
    instance, profile = call.words

    def without(profiles: list[str]) -> list[str]:
        if profile not in profiles:
            raise Refused(400, f"Profile {profile} isn't currently applied to {instance}")
        return [name for name in profiles if name != profile]

    _assign(call, instance, without)
    call.say(f"Profile {profile} removed from {instance}")


def assign(call: Call) -> None:
    instance, text = call.words
    _assign(call, instance, lambda _: [name for name in text.split(",") if name])
    call.say(f"Profiles {text or '(none)'} applied to {instance}")


def _assign(call: Call, instance: str, choose: Any) -> None:
    def change(body: dict[str, Any]) -> None:
        body["profiles"] = choose(body["profiles"] or [])

    update(call.server, KINDS["instance"], instance, change)
