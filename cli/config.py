"""`podium config`: the keys of an instance, or of the server where no instance is named."""

from __future__ import annotations

from cli import documents
from cli.call import Call
from cli.documents import dump, load_map, ordered
from cli.kinds import KINDS, Kind, document, edit_document, place, unset_key, update, writable
from cli.server import url

# In the order of the stock client's struct.
SNAPSHOT = (
    *("expires_at", "architecture", "config", "created_at", "devices", "ephemeral", "expanded_config"),
    *("expanded_devices", "last_used_at", "name", "profiles", "stateful", "size"),
)


def get(call: Call) -> None:
    kind, name, words = _target(call, 1)
    found = call.server.get(place(kind, name))
    config = found["expanded_config" if call.on("expanded") else "config"]
    print(config.get(words[0], ""))


def set(call: Call) -> None:
    kind, name, words = _set_target(call)
    pairs = call.assignments(words)
    update(call.server, kind, name, lambda body: body["config"].update(pairs))


def unset(call: Call) -> None:
    kind, name, words = _target(call, 1)
    unset_key(call.server, kind, name, words[0])


def show(call: Call) -> None:
    kind, name, _ = _target(call, 0)
    if "/" in name:
        instance, _, snapshot = name.partition("/")
        found = call.server.get(url("instances", instance, "snapshots", snapshot))
        print(dump(ordered(found, SNAPSHOT)), end="")
        return
    found = call.server.get(place(kind, name))
    if call.on("expanded"):
        found["config"], found["devices"] = found["expanded_config"], found["expanded_devices"]
    print(document(kind, writable(kind, found)), end="")


def edit(call: Call) -> None:
    kind, name, _ = _target(call, 0)
    if "/" in name:
        _edit_snapshot(call, name)
    else:
        edit_document(call.server, kind, name)


def _edit_snapshot(call: Call, name: str) -> None:
    """Of a snapshot only the expiry may be changed."""
    instance, _, snapshot = name.partition("/")
    place = url("instances", instance, "snapshots", snapshot)
    found, etag = call.server.get_tagged(place)

    def save(text: str) -> None:
        body = {"expires_at": load_map(text).get("expires_at", found["expires_at"])}
        call.server.send("PUT", place, body, etag=etag, doing=f"Updating {name}")

    shown = ordered(found, SNAPSHOT)
    documents.edit(f"# Snapshot {name}; may be changed: expires_at\n" + dump(shown), save)


def _target(call: Call, keys: int) -> tuple[Kind, str, list[str]]:
    """Return what the words are about: an instance when there is one more word than keys."""
    if len(call.words) > keys:
        return KINDS["instance"], call.words[0], call.words[1:]
    return KINDS["server"], "", call.words


def _set_target(call: Call) -> tuple[Kind, str, list[str]]:
    """KEY=VALUE… are the server's, unless an instance comes first; KEY VALUE is the old way."""
    words = call.words
    if "=" in words[0] or (len(words) == 2 and "=" not in words[1]):
        return KINDS["server"], "", words
    if len(words) < 2:
        raise call.misuse(f"{words[0]!r} is not understood", "it must read KEY=VALUE")
    return KINDS["instance"], words[0], words[1:]
