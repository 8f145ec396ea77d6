"""`podium storage volume`: custom volumes and their snapshots, with the stock client's words and output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cli import tables
from cli.call import Call
from cli.documents import dump, load_map, ordered
from cli.documents import edit as edit_text
from cli.failure import Refused
from cli.server import url
from cli.texts import binary_size, short_time

_FIELDS = ("config", "description", "name", "type", "used_by", "location", "content_type", "project")
_SNAPSHOT = ("description", "expires_at", "name", "config", "content_type")
_HEADER = ("TYPE", "NAME", "DESCRIPTION", "CONTENT-TYPE", "USED BY")


def place(pool: str, name: str) -> str:
    """Return the path of "NAME", "TYPE/NAME" or "NAME/SNAPSHOT"."""
    kind, rest = _split(name)
    volume, _, snapshot = rest.partition("/")
    path = url("storage-pools", pool, "volumes", kind, volume)
    return f"{path}/snapshots/{url(snapshot).rpartition('/')[2]}" if snapshot else path


def _split(name: str) -> tuple[str, str]:
    kind, slash, rest = name.partition("/")
    return (kind, rest) if slash and kind in ("custom", "container", "image") else ("custom", name)


def _folder(pool: str) -> str:
    return url("storage-pools", pool, "volumes", "custom")


def _is_snapshot(name: str) -> bool:
    return "/" in _split(name)[1]


def listing(call: Call) -> None:
    everywhere = call.on("all-projects")
    query = {"recursion": "1"} | ({"all_projects": "true"} if everywhere else {})
    found = call.server.get(url("storage-pools", call.words[0], "volumes"), **query)
    for word in call.words[1:]:
        key, _, value = word.partition("=")
        found = [v for v in found if str(v.get(key, "")) == value]
    found.sort(key=lambda v: (v["project"], v["type"], tables.natural(v["name"])))
    rows = [([v["project"]] if everywhere else []) + _row(v) for v in found]
    header = ("PROJECT", *_HEADER) if everywhere else _HEADER
    tables.show(call.text("format"), header, rows, found, is_sorted=False)


def _row(volume: dict[str, Any]) -> list[str]:
    kind = f"{volume['type']} (snapshot)" if "/" in volume["name"] else volume["type"]
    used = str(len(volume["used_by"] or []))
    return [kind, volume["name"], volume["description"], volume["content_type"], used]


def show(call: Call) -> None:
    pool, name = call.words
    fields = _SNAPSHOT if _is_snapshot(name) else _FIELDS
    print(dump(ordered(call.server.get(place(pool, name)), fields)), end="")


def info(call: Call) -> None:
    pool, name = call.words
    path = place(pool, name)
    volume, state = call.server.get(path), call.server.get(f"{path}/state")
    usage = state["usage"] or {}
    print(f"Name: {volume['name']}")
    if volume["description"]:
        print(f"Description: {volume['description']}")
    print(f"Type: {volume['type']}\nContent type: {volume['content_type']}")
    if usage:
        print(f"Usage: {binary_size(usage['used'])}")
    if usage.get("total"):
        print(f"Total: {binary_size(usage['total'])}")
    if snapshots := call.server.get(f"{path}/snapshots", recursion="1"):
        rows = [[s["name"].partition("/")[2], s["description"], short_time(s["expires_at"] or "")]
                for s in snapshots]  # fmt: skip
        print("\nSnapshots:")
        tables.show("table", ("NAME", "DESCRIPTION", "EXPIRES AT"), rows, snapshots)


def create(call: Call) -> None:
    pool, name, *words = call.words
    kind, name = _split(name)
    body = {
        "name": name,
        "type": kind,
        "content_type": call.text("type", "filesystem"),
        "config": call.pairs(words),
    }
    call.server.send("POST", url("storage-pools", pool, "volumes", kind), body, doing=f"Creating {name}")
    call.say(f"Storage volume {call.words[1]} created")


def delete(call: Call) -> None:
    pool, name = call.words
    call.server.send("DELETE", place(pool, name), doing=f"Deleting {name}")
    call.say(f"Storage volume {name} deleted")


def get(call: Call) -> None:
    pool, name, key = call.words
    print(call.server.get(place(pool, name))["config"].get(key, ""))


def set(call: Call) -> None:
    pool, name, *words = call.words
    pairs = call.assignments(words)
    _update(call, pool, name, lambda config: config.update(pairs))


def unset(call: Call) -> None:
    pool, name, key = call.words
    _update(call, pool, name, lambda config: config.update({key: ""}))


def _update(call: Call, pool: str, name: str, change: Callable[[dict[str, str]], None]) -> None:
    if _is_snapshot(name):
        raise Refused(400, "Snapshots are read-only and can't have their configuration changed")
    found, etag = call.server.get_tagged(place(pool, name))
    body = {"config": dict(found["config"]), "description": found["description"]}
    change(body["config"])
    call.server.send("PUT", place(pool, name), body, etag=etag, doing=f"Updating {name}")


def edit(call: Call) -> None:
    pool, name = call.words
    path = place(pool, name)
    found, etag = call.server.get_tagged(path)
    writable = ("description", "expires_at") if _is_snapshot(name) else ("config", "description")
    body = {key: found[key] for key in writable}

    def save(text: str) -> None:
        changed = {key: value for key, value in load_map(text).items() if key in writable}
        call.server.send("PUT", path, {**body, **changed}, etag=etag, doing=f"Updating {name}")

    edit_text(f"# Volume {name}; may be changed: {', '.join(writable)}\n{dump(body)}", save)


def rename(call: Call) -> None:
    pool, old, new = call.words
    if _is_snapshot(old):
        volume, _, name = new.partition("/")
        if volume != _split(old)[1].partition("/")[0] or not name:
            raise Refused(400, "Invalid new snapshot name, parent volume must be the same as source")
        new = name
    call.server.send("POST", place(pool, old), {"name": new}, doing=f"Renaming {old}")
    call.say(f'Renamed storage volume from "{old}" to "{new}"')


def snapshot(call: Call) -> None:
    pool, name = call.words[:2]
    wanted, path = call.word(2), place(pool, call.words[1])
    call.server.get(path)
    if wanted and call.on("reuse") and call.server.find(f"{path}/snapshots/{wanted}"):
        call.server.send("DELETE", f"{path}/snapshots/{wanted}")
    body: dict[str, Any] = {"name": wanted}
    if call.on("no-expiry"):
        body["expires_at"] = "0001-01-01T00:00:00Z"
    call.server.send("POST", f"{path}/snapshots", body, doing=f"Taking a snapshot of {name}")


def restore(call: Call) -> None:
    pool, name, wanted = call.words
    found, etag = call.server.get_tagged(place(pool, name))
    body = {"config": found["config"], "description": found["description"], "restore": wanted}
    call.server.send("PUT", place(pool, name), body, etag=etag, doing=f"Restoring {name}")


def copy(call: Call) -> None:
    _copy(call, "Copying")
    call.say("Storage volume copied successfully!")


def move(call: Call) -> None:
    """Within a pool and project a rename; else a copy, and then the original goes."""
    (pool, name), (target, new) = (_pair(call, word) for word in call.words)
    if pool == target and not call.text("target-project"):
        call.server.send("POST", place(pool, name), {"name": new}, doing=f"Moving {name}")
    else:
        _copy(call, "Moving")
        call.server.send("DELETE", place(pool, name), doing=f"Deleting {name}")
    call.say("Storage volume moved successfully!")


def _copy(call: Call, doing: str) -> None:
    (pool, name), (target, new) = (_pair(call, word) for word in call.words)
    volume = call.server.get(place(pool, name.partition("/")[0]))
    body = {
        "name": new,
        "type": "custom",
        "config": volume["config"],
        "description": volume["description"],
        "source": {
            "type": "copy",
            "name": name,
            "pool": pool,
            "project": call.project or "default",
            "volume_only": call.on("volume-only"),
            "refresh": call.on("refresh"),
        },
    }
    there = {"project": call.text("target-project")} if call.text("target-project") else {}
    call.server.send("POST", _folder(target), body, doing=f"{doing} {name}", **there)


def _pair(call: Call, word: str) -> tuple[str, str]:
    pool, slash, name = word.partition("/")
    if not slash or not name:
        raise call.misuse(f"{word!r} names no volume", "it must read POOL/VOLUME")
    return pool, name


def attach(call: Call) -> None:
    _attach(call, url("instances", call.words[2]))


def attach_profile(call: Call) -> None:
    _attach(call, url("profiles", call.words[2]))


def _attach(call: Call, path: str) -> None:
    pool, name, _, *words = call.words
    device = words[0] if len(words) == 2 else name
    disk = {"type": "disk", "pool": pool, "source": name} | ({"path": words[-1]} if words else {})

    def change(devices: dict[str, Any]) -> None:
        if device in devices:
            raise Refused(400, f"Device already exists: {device}")
        devices[device] = disk

    _devices(call, path, change)


def detach(call: Call) -> None:
    _detach(call, url("instances", call.words[2]))


def detach_profile(call: Call) -> None:
    _detach(call, url("profiles", call.words[2]))


def _detach(call: Call, path: str) -> None:
    pool, name, _ = call.words[:3]

    def change(devices: dict[str, Any]) -> None:
        found = [d for d, o in devices.items() if o.get("type") == "disk" and o.get("pool") == pool
                 and o.get("source") == name]  # fmt: skip
        if device := call.word(3):
            if device not in devices:
                raise Refused(400, "The specified device doesn't exist")
            found = [device]
        if len(found) != 1:
            why = "More than one device matches, specify the device name"
            raise Refused(400, why if found else "No device found for this storage volume")
        del devices[found[0]]

    _devices(call, path, change)


def _devices(call: Call, path: str, change: Callable[[dict[str, Any]], None]) -> None:
    found, etag = call.server.get_tagged(path)
    fields = ("architecture", "config", "devices", "ephemeral", "profiles", "stateful", "description")
    body = {key: found[key] for key in fields if key in found}
    change(body["devices"])
    call.server.send("PUT", path, body, etag=etag, doing=f"Updating {found['name']}")


def export(call: Call) -> None:
    from cli import backups

    pool, name = call.words[:2]
    path, ending = place(pool, name), backups.ending(call.text("compression"))
    body = {"volume_only": call.on("volume-only"), "optimized_storage": call.on("optimized-storage")}
    backup = backups.made(call, f"{path}/backups", name, body)
    try:
        backups.save(call, f"{path}/backups/{backup}/export", call.word(2, f"{name}.tar{ending}"))
    finally:
        call.server.send("DELETE", f"{path}/backups/{backup}")
    call.say("Backup exported successfully!")


def take_in(call: Call) -> None:
    from cli import backups

    pool, path = call.words[:2]
    headers = {"X-LXD-name": call.word(2)} if call.word(2) else {}
    backups.bring(call, path, _folder(pool), headers, doing="Importing custom volume")
