"""What can be broken at each of its failpoints: how to get there, what to ask for, what may come of it."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from protos.podium.image.v1 import image_pb2, image_pb2_grpc
from services.image.sources.recipe import recipe_of
from tests.faults.harness import Victim, wait_for

Answer = dict[str, Any]
ABSENT, RUNNING, STOPPED, FROZEN, ERROR, CREATED = (
    "absent",
    "Running",
    "Stopped",
    "Frozen",
    "Error",
    "Created",
)
NAME, NETWORK, POOL = "step", "step0", "step"


def call(victim: Victim, method: str, path: str, body: object = None) -> Answer:
    """One request, and the operation it began waited for. Raises: AssertionError when it failed."""
    answer = victim.side.request(method, path, body)
    if answer["type"] == "async":
        answer = victim.side.request("GET", f"{answer['operation']}/wait?timeout=30")
    error = answer.get("error") or (answer.get("metadata") or {}).get("err")
    assert not error, f"{method} {path}: {error}"
    return answer


def state_at(victim: Victim, path: str, field: str = "status") -> str:
    answer = victim.side.request("GET", path)
    if answer.get("error_code") == 404:
        return ABSENT
    assert not answer.get("error_code"), answer
    return str(answer["metadata"].get(field, CREATED))


# --- the things that stories are about ---------------------------------------------------------------


class Instance:
    """An instance named *name*; *other* is the name it may have been given."""

    def state(self, victim: Victim) -> str:
        found = [state_at(victim, f"/1.0/instances/{name}") for name in (NAME, f"{NAME}-renamed")]
        there = [state for state in found if state != ABSENT]
        assert len(there) < 2, "one instance has two names"
        return there[0] if there else ABSENT

    def reach(self, victim: Victim, state: str) -> None:
        if self.state(victim) == state and state_at(victim, f"/1.0/instances/{NAME}") == state:
            return
        self.remove(victim)
        if state == ABSENT:
            return
        call(victim, "POST", "/1.0/instances", new_instance(victim, start=state != STOPPED))
        if state == FROZEN:
            call(victim, *power("freeze"))

    def remove(self, victim: Victim) -> None:
        for name in (NAME, f"{NAME}-renamed"):
            with contextlib.suppress(AssertionError):
                call(victim, *power("stop", name=name, force=True))
            if state_at(victim, f"/1.0/instances/{name}") != ABSENT:
                call(victim, "DELETE", f"/1.0/instances/{name}")


class Image:
    path = ""

    def state(self, victim: Victim) -> str:
        return state_at(victim, f"/1.0/images/{tiny_image()[0]}")

    def reach(self, victim: Victim, state: str) -> None:
        if self.state(victim) == state:
            return
        if state == CREATED:
            upload(victim)
        else:
            call(victim, "DELETE", f"/1.0/images/{tiny_image()[0]}")

    def remove(self, victim: Victim) -> None:
        self.reach(victim, ABSENT)


class Published:
    """The alias of an image that is made of a stopped instance."""

    path = "/1.0/images/aliases/step-published"

    def state(self, victim: Victim) -> str:
        return state_at(victim, self.path, field="type")

    def reach(self, victim: Victim, state: str) -> None:
        self._unpublish(victim)
        INSTANCE.reach(victim, STOPPED)

    def remove(self, victim: Victim) -> None:
        self._unpublish(victim)
        INSTANCE.remove(victim)

    def _unpublish(self, victim: Victim) -> None:
        for image in victim.side.request("GET", "/1.0/images?recursion=1")["metadata"]:
            if "step" in image["properties"]:
                call(victim, "DELETE", f"/1.0/images/{image['fingerprint']}")


class Built:
    """The alias of an image that was built before, so that building it again needs no packages."""

    path = "/1.0/images/aliases/step-built"

    def state(self, victim: Victim) -> str:
        return state_at(victim, self.path, field="type")

    def reach(self, victim: Victim, state: str) -> None:
        self.remove(victim)
        IMAGE.reach(victim, CREATED)
        properties = {"properties": {"recipe": recipe_of("debian", "12", ()).id}}
        call(victim, "PATCH", f"/1.0/images/{tiny_image()[0]}", properties)

    def remove(self, victim: Victim) -> None:
        if self.state(victim) != ABSENT:
            call(victim, "DELETE", self.path)
        IMAGE.remove(victim)


class Listed:
    """A network or pool, made and deleted at *folder*."""

    def __init__(self, folder: str, body: dict[str, Any]) -> None:
        self.folder, self.body = folder, body
        self.names = (body["name"], f"{body['name']}r")

    def state(self, victim: Victim) -> str:
        found = [state_at(victim, f"{self.folder}/{name}") for name in self.names]
        return next((state for state in found if state != ABSENT), ABSENT)

    def reach(self, victim: Victim, state: str) -> None:
        if state_at(victim, f"{self.folder}/{self.names[0]}") == state:
            return
        self.remove(victim)
        if state != ABSENT:
            call(victim, "POST", self.folder, self.body)

    def remove(self, victim: Victim) -> None:
        for name in self.names:
            if state_at(victim, f"{self.folder}/{name}") != ABSENT:
                call(victim, "DELETE", f"{self.folder}/{name}")


INSTANCE, IMAGE, BUILT, PUBLISHED = Instance(), Image(), Built(), Published()
BRIDGE = Listed("/1.0/networks", {"name": NETWORK, "config": {"ipv6.address": "none"}})
TENANT = Listed("/1.0/projects", {"name": "tenant"})


class Fence:
    """An ACL that a network of its own has."""

    acl, folder = f"/1.0/network-acls/{NAME}", "/1.0/network-acls"

    def state(self, victim: Victim) -> str:
        return state_at(victim, self.acl, field="type")

    def reach(self, victim: Victim, state: str) -> None:
        self.remove(victim)
        call(victim, "POST", self.folder, {"name": NAME})
        config = {**BRIDGE.body["config"], "security.acls": NAME}
        call(victim, "POST", BRIDGE.folder, {**BRIDGE.body, "config": config})

    def remove(self, victim: Victim) -> None:
        BRIDGE.remove(victim)
        if self.state(victim) != ABSENT:
            call(victim, "DELETE", self.acl)


class Custom:
    """A custom volume in the first pool there is; *name*, or the name it may have been given."""

    names = ("step-volume", "step-volume-copy")

    folder = "/1.0/storage-pools/default/volumes/custom"

    def state(self, victim: Victim) -> str:
        return state_at(victim, f"{self.folder}/{self.names[0]}")

    def reach(self, victim: Victim, state: str) -> None:
        self.remove(victim)
        if state != ABSENT:
            call(victim, "POST", self.folder, self.body)

    def remove(self, victim: Victim) -> None:
        for name in self.names:
            if state_at(victim, f"{self.folder}/{name}") != ABSENT:
                call(victim, "DELETE", f"{self.folder}/{name}")

    @property
    def body(self) -> dict[str, Any]:
        return {"name": self.names[0], "type": "custom", "config": {"size": "64MiB"}}


class Copy(Custom):
    """The copy of a custom volume that has a snapshot."""

    def state(self, victim: Victim) -> str:
        return state_at(victim, f"{self.folder}/{self.names[1]}")

    def reach(self, victim: Victim, state: str) -> None:
        super().reach(victim, CREATED)
        call(victim, "POST", f"{self.folder}/{self.names[0]}/snapshots", {"name": "s0"})
        if state != ABSENT:
            call(victim, "POST", self.folder, self.copy())

    def copy(self, *, refresh: bool = False) -> dict[str, Any]:
        source = {"type": "copy", "name": self.names[0], "pool": "default", "refresh": refresh}
        return {"name": self.names[1], "type": "custom", "source": source}


class Moved(Custom):
    """A custom volume on its way to another project."""

    project = "step-project"

    def state(self, victim: Victim) -> str:
        paths = (f"{self.folder}/{self.names[0]}{of}" for of in ("", f"?project={self.project}"))
        found = [state for path in paths if (state := state_at(victim, path)) != ABSENT]
        assert len(found) < 2, "one volume is in two projects"
        return found[0] if found else ABSENT

    def reach(self, victim: Victim, state: str) -> None:
        super().reach(victim, state)
        call(victim, "POST", "/1.0/projects", {"name": self.project})
        # The runtime hears of it from the state, a moment after who made it.
        seen = f"/1.0/storage-pools/default/volumes?project={self.project}"
        wait_for(lambda: victim.side.request("GET", seen)["status_code"] == 200, 5, "the new project")

    def remove(self, victim: Victim) -> None:
        super().remove(victim)
        project = f"/1.0/projects/{self.project}"
        path = f"{self.folder}/{self.names[0]}?project={self.project}"
        if state_at(victim, project) != ABSENT:
            if state_at(victim, path) != ABSENT:
                call(victim, "DELETE", path)
            # That it is empty now, its service hears from the state, a moment later.
            wait_for(lambda: victim.side.request("DELETE", project)["type"] != "error", 5, "an empty project")


class VolumeSnapshot(Custom):
    """A snapshot of a custom volume; it may have been renamed."""

    def state(self, victim: Victim) -> str:
        paths = (f"{self.folder}/{self.names[0]}/snapshots/{name}" for name in ("s0", "s1"))
        found = [state for path in paths if (state := state_at(victim, path)) != ABSENT]
        assert len(found) < 2, "one snapshot has two names"
        return found[0] if found else ABSENT

    def reach(self, victim: Victim, state: str) -> None:
        super().reach(victim, CREATED)
        if state != ABSENT:
            call(victim, "POST", f"{self.folder}/{self.names[0]}/snapshots", {"name": "s0"})


class Crowd(Fence):
    """An address set that the ACL of a network names."""

    set, more = f"/1.0/network-address-sets/{NAME}", {"addresses": ["192.0.2.1", "192.0.2.2"]}

    def reach(self, victim: Victim, state: str) -> None:
        super().reach(victim, state)
        call(victim, "POST", "/1.0/network-address-sets", {"name": NAME, "addresses": ["192.0.2.1"]})
        rule = {"action": "drop", "state": "enabled", "source": f"${NAME}"}
        call(victim, "PUT", self.acl, {"ingress": [rule]})

    def remove(self, victim: Victim) -> None:
        super().remove(victim)
        if state_at(victim, self.set) != ABSENT:
            call(victim, "DELETE", self.set)


class Door:
    """A forward of a network of its own."""

    path = f"/1.0/networks/{NETWORK}/forwards/192.0.2.66"

    def state(self, victim: Victim) -> str:
        return state_at(victim, self.path, field="type")

    def reach(self, victim: Victim, state: str) -> None:
        self.remove(victim)
        BRIDGE.reach(victim, CREATED)
        call(victim, "POST", f"/1.0/networks/{NETWORK}/forwards", {"listen_address": "192.0.2.66"})

    def remove(self, victim: Victim) -> None:
        BRIDGE.remove(victim)

    def open(self, victim: Victim) -> dict[str, Any]:
        config = victim.side.request("GET", f"/1.0/networks/{NETWORK}")["metadata"]["config"]
        return {"config": {"target_address": config["ipv4.address"].partition("/")[0]}}


FENCE, CROWD, DOOR = Fence(), Crowd(), Door()
CUSTOM, COPY, MOVED, VSNAP = Custom(), Copy(), Moved(), VolumeSnapshot()
VOLUMES = Listed("/1.0/storage-pools", {"name": POOL, "driver": "btrfs", "config": {"size": "128MiB"}})


# --- what to ask for -----------------------------------------------------------------------------------


def new_instance(victim: Victim, *, start: bool) -> dict[str, Any]:
    return {"name": NAME, "source": {"type": "image", "alias": victim.image}, "start": start}


def power(action: str, *, name: str = NAME, force: bool = True) -> tuple[str, str, dict[str, Any]]:
    body = {"action": action, "timeout": 30, "force": force}
    return "PUT", f"/1.0/instances/{name}/state", body


@functools.cache
def tiny_image() -> tuple[str, bytes]:
    """Fingerprint and bytes of the smallest image there is."""
    import hashlib

    buffer = io.BytesIO()
    metadata = json.dumps(
        {"architecture": "x86_64", "creation_date": 1, "properties": {"os": "none"}}
    ).encode()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        about = tarfile.TarInfo("metadata.yaml")
        about.size = len(metadata)
        tar.addfile(about, io.BytesIO(metadata))
        folder = tarfile.TarInfo("rootfs")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
    raw = buffer.getvalue()
    return hashlib.sha256(raw).hexdigest(), raw


def upload(victim: Victim) -> Answer:
    connection = victim.side.connect()
    try:
        headers = {"Content-Type": "application/octet-stream"}
        connection.request("POST", "/1.0/images", tiny_image()[1], headers)
        answer: Answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    if answer["type"] == "async":
        answer = victim.side.request("GET", f"{answer['operation']}/wait?timeout=30")
    error = answer.get("error") or (answer.get("metadata") or {}).get("err")
    assert not error, error
    return answer


def plug(victim: Victim) -> Answer:
    """Add a NIC that the instance never had, by changing it while it runs."""
    device = f"n{time.monotonic_ns() % 10**9}"
    nic = {"type": "nic", "network": victim.settings().bridge}
    return call(victim, "PATCH", f"/1.0/instances/{NAME}", {"devices": {device: nic}})


def plug_devices(victim: Victim) -> Answer:
    """Give it a node and a proxy while it runs, and take them away again."""
    path = f"/1.0/instances/{NAME}"
    node = {"type": "unix-char", "source": "/dev/null", "path": "/dev/step"}
    proxy = {"type": "proxy", "listen": "unix:@podium-step", "connect": "tcp:127.0.0.1:9"}
    whole = victim.side.request("GET", path)["metadata"]
    call(victim, "PATCH", path, {"devices": {"node": node, "proxy": proxy}})
    return call(victim, "PUT", path, {**whole, "devices": {}})


def build(victim: Victim) -> Answer:
    """By gRPC, since LXD's API has no such request."""
    request = image_pb2.BuildImageRequest(
        project="default", distribution="debian", release="12", aliases=["step-built"]
    )
    with grpc.insecure_channel(f"unix:{victim.settings().service_socket('image')}") as channel:
        try:
            reply = image_pb2_grpc.ImageServiceStub(channel).BuildImage(request, timeout=10)
        except grpc.RpcError as exc:
            raise OSError(str(exc)) from exc
    answer: Answer = victim.side.request("GET", f"/1.0/operations/{reply.operation.id}/wait?timeout=30")
    error = answer.get("error") or answer["metadata"].get("err")
    assert not error, error
    return answer


def move_ids(victim: Victim) -> Answer:
    """Start it with another range of ids than it has."""
    size = str(70_000 + time.monotonic_ns() % 10_000)
    call(victim, "PATCH", f"/1.0/instances/{NAME}", {"config": {"security.idmap.size": size}})
    return call(victim, *power("start"))


def power_off(victim: Victim) -> Answer:
    return _end(victim, "poweroff")


def reboot(victim: Victim) -> Answer:
    return _end(victim, "reboot")


def _end(victim: Victim, how: str) -> Answer:
    """End the guest from inside, and return once it was noticed."""
    before = victim.pids(NAME)[NAME]
    victim.side.try_lxc("exec", NAME, "--", how, "-ff", timeout_s=20)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if victim.pids(NAME)[NAME] != before:
                break
        time.sleep(0.1)
    return {}


# --- the table -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """A kind of work at one thing. *may_be*: what the thing may be afterwards, done or undone.

    keeps: what succeeded before the failure stays, since making it again costs minutes.
    """

    kind: str
    thing: Any
    before: str
    may_be: tuple[str, ...]
    ask: Callable[[Victim], Answer]
    variant: str = ""
    keeps: bool = False

    def __str__(self) -> str:
        return f"{self.kind}{self.variant and '-'}{self.variant}"


def _ask(method: str, path: str, body: Any = None) -> Callable[[Victim], Answer]:
    return lambda victim: call(victim, method, path, body(victim) if callable(body) else body)


_EVERY = {"state": {"action": "start", "timeout": 30, "force": True}}
_ONE, _NET, _POOL = f"/1.0/instances/{NAME}", f"/1.0/networks/{NETWORK}", f"/1.0/storage-pools/{POOL}"
_RENAMED, _CHANGED = {"name": f"{NAME}-renamed"}, {"config": {"user.x": "1"}}
_VOLUME, _SMALLER = f"{CUSTOM.folder}/{CUSTOM.names[0]}", {"config": {"size": "32MiB"}}
_TENANT = "/1.0/projects/tenant"
_VSNAPS, _VSNAP = f"{_VOLUME}/snapshots", f"{_VOLUME}/snapshots/s0"
_ELSEWHERE = {"name": CUSTOM.names[0], "project": MOVED.project}
_DOOR = DOOR.path
_ACL, _SHUT = FENCE.acl, {"ingress": [{"action": "drop", "state": "enabled"}]}
_NO_NAT = {"config": {"ipv4.nat": "false"}}
_PUBLISH = {
    "source": {"type": "instance", "name": NAME},
    "properties": {"step": "published"},
    "aliases": [{"name": "step-published"}],
}
_LAUNCH = functools.partial(new_instance, start=True)

SCENARIOS = (
    Scenario("instance.create", INSTANCE, ABSENT, (ABSENT, RUNNING), _ask("POST", "/1.0/instances", _LAUNCH)),
    Scenario("instance.ids", INSTANCE, STOPPED, (STOPPED, RUNNING), move_ids),
    Scenario("instance.start", INSTANCE, STOPPED, (STOPPED, RUNNING), _ask(*power("start"))),
    Scenario("instance.stop", INSTANCE, RUNNING, (STOPPED, RUNNING), _ask(*power("stop"))),
    Scenario("instance.restart", INSTANCE, RUNNING, (STOPPED, RUNNING), _ask(*power("restart"))),
    Scenario("instance.freeze", INSTANCE, RUNNING, (FROZEN, RUNNING), _ask(*power("freeze"))),
    Scenario("instance.unfreeze", INSTANCE, FROZEN, (FROZEN, RUNNING), _ask(*power("unfreeze"))),
    Scenario("instance.exit", INSTANCE, RUNNING, (STOPPED,), power_off, "poweroff"),
    Scenario("instance.exit", INSTANCE, RUNNING, (RUNNING, STOPPED), reboot, "reboot"),
    Scenario("instance.all", INSTANCE, STOPPED, (STOPPED, RUNNING), _ask("PUT", "/1.0/instances", _EVERY)),
    Scenario("instance.delete", INSTANCE, STOPPED, (ABSENT, ERROR), _ask("DELETE", _ONE)),
    Scenario("instance.rename", INSTANCE, STOPPED, (STOPPED,), _ask("POST", _ONE, _RENAMED)),
    Scenario("instance.update", INSTANCE, RUNNING, (RUNNING,), _ask("PATCH", _ONE, _CHANGED)),
    Scenario("project.rename", TENANT, CREATED, (CREATED,), _ask("POST", _TENANT, {"name": TENANT.names[1]})),
    Scenario("nics.plug", INSTANCE, RUNNING, (RUNNING,), plug),
    Scenario("devices.plug", INSTANCE, RUNNING, (RUNNING,), plug_devices),
    Scenario("image.build", BUILT, ABSENT, (ABSENT, "container"), build, keeps=True),
    Scenario("image.import", IMAGE, ABSENT, (ABSENT, CREATED), upload),
    Scenario(
        "image.publish", PUBLISHED, ABSENT, (ABSENT, "container"), _ask("POST", "/1.0/images", _PUBLISH)
    ),
    Scenario("image.delete", IMAGE, CREATED, (ABSENT,), _ask("DELETE", f"/1.0/images/{tiny_image()[0]}")),
    Scenario("network.create", BRIDGE, ABSENT, (ABSENT, CREATED), _ask("POST", BRIDGE.folder, BRIDGE.body)),
    Scenario("network.update", BRIDGE, CREATED, (CREATED,), _ask("PATCH", _NET, _NO_NAT)),
    Scenario("network.rename", BRIDGE, CREATED, (CREATED,), _ask("POST", _NET, {"name": BRIDGE.names[1]})),
    Scenario("network.delete", BRIDGE, CREATED, (ABSENT, CREATED), _ask("DELETE", _NET)),
    Scenario("acl.update", FENCE, CREATED, (CREATED,), _ask("PUT", _ACL, _SHUT)),
    Scenario("addressset.update", CROWD, CREATED, (CREATED,), _ask("PUT", CROWD.set, CROWD.more)),
    Scenario("listener.change", DOOR, CREATED, (CREATED,), _ask("PUT", _DOOR, DOOR.open)),
    Scenario("volume.create", CUSTOM, ABSENT, (ABSENT, CREATED), _ask("POST", CUSTOM.folder, CUSTOM.body)),
    Scenario("volume.update", CUSTOM, CREATED, (CREATED,), _ask("PATCH", _VOLUME, _SMALLER)),
    Scenario("volume.delete", CUSTOM, CREATED, (ABSENT, CREATED), _ask("DELETE", _VOLUME)),
    Scenario("volume.copy", COPY, ABSENT, (ABSENT, CREATED), _ask("POST", COPY.folder, COPY.copy())),
    Scenario("volume.refresh", COPY, CREATED, (CREATED,), _ask("POST", COPY.folder, COPY.copy(refresh=True))),
    Scenario("volume.move", MOVED, CREATED, (CREATED,), _ask("POST", _VOLUME, _ELSEWHERE)),
    Scenario("volume.restore", VSNAP, CREATED, (CREATED,), _ask("PUT", _VOLUME, {"restore": "s0"})),
    Scenario(
        "volumesnapshot.create", VSNAP, ABSENT, (ABSENT, CREATED), _ask("POST", _VSNAPS, {"name": "s0"})
    ),
    Scenario("volumesnapshot.rename", VSNAP, CREATED, (CREATED,), _ask("POST", _VSNAP, {"name": "s1"})),
    Scenario("volumesnapshot.delete", VSNAP, CREATED, (ABSENT, CREATED), _ask("DELETE", _VSNAP)),
    Scenario("pool.create", VOLUMES, ABSENT, (ABSENT, CREATED), _ask("POST", VOLUMES.folder, VOLUMES.body)),
    Scenario("pool.delete", VOLUMES, CREATED, (ABSENT, CREATED, "Errored"), _ask("DELETE", _POOL)),
)


@dataclass(frozen=True)
class Points:
    """The failpoints that the running services say they have: name -> service."""

    of: dict[str, str]

    @classmethod
    def read(cls, victim: Victim) -> Points:
        found = {}
        for file in (victim.state_dir / "run").glob("*.failpoints"):
            found |= dict.fromkeys(file.read_text().split(), file.stem)
        return cls(found)

    @property
    def kinds(self) -> set[str]:
        return {".".join(name.split(".")[:2]) for name in self.of}

    def at(self, kind: str) -> list[str]:
        return [name for name in self.of if name.startswith(f"{kind}.")]


def settled(victim: Victim) -> None:
    """Return when every service answers and no operation is unfinished."""
    for path in ("instances", "images", "networks", "storage-pools", "profiles"):
        wait_for(lambda path=path: _answers(victim, path), 30, f"an answer about {path}")
    wait_for(lambda: not victim.unfinished_operations(), 60, "the end of all operations")


def _answers(victim: Victim, path: str) -> bool:
    return bool(victim.side.request("GET", f"/1.0/{path}")["status_code"] == 200)
