"""Failpoints of images that come from elsewhere: a server of images on the loopback, for the whole run."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from typing import Any

from tests.fakes.image_server import METADATA, ImageServer, serving, tar
from tests.faults.harness import Victim
from tests.faults.stories import ABSENT, CREATED, INSTANCE, NAME, STOPPED, Scenario, call, state_at

_held = contextlib.ExitStack()
_CONTENT = tar({"metadata.yaml": METADATA, "rootfs/etc/os-release": b"x"})
_OLD, _NEW = "old", "new"
_VERSIONS = {v: tar({"metadata.yaml": METADATA, "rootfs/version": v.encode()}) for v in (_OLD, _NEW)}
_FINGERPRINT = hashlib.sha256(_CONTENT).hexdigest()


@functools.cache
def _server() -> ImageServer:
    server = _held.enter_context(serving())
    server.offer()
    server.offer_unified("whole", _CONTENT)
    return server


def _source() -> dict[str, Any]:
    return {
        "type": "image",
        "mode": "pull",
        "protocol": "simplestreams",
        "server": _server().url,
        "alias": "whole",
    }


class Brought:
    """The image that the server offers."""

    def state(self, victim: Victim) -> str:
        return state_at(victim, f"/1.0/images/{_FINGERPRINT}", field="type")

    def reach(self, victim: Victim, state: str) -> None:
        self.remove(victim)

    def remove(self, victim: Victim) -> None:
        if self.state(victim) != ABSENT:
            call(victim, "DELETE", f"/1.0/images/{_FINGERPRINT}")


class Launched:
    """An instance of that image; the image stays as a cached one when the instance fails."""

    def state(self, victim: Victim) -> str:
        return INSTANCE.state(victim)

    def reach(self, victim: Victim, state: str) -> None:
        self.remove(victim)

    def remove(self, victim: Victim) -> None:
        INSTANCE.remove(victim)
        Brought().remove(victim)


class Followed:
    """An image that the server has replaced since: one of both has the alias, and no other is there."""

    def state(self, victim: Victim) -> str:
        of = {_hash(content): state for state, content in _VERSIONS.items()}
        found = [of[url.rsplit("/", 1)[-1]] for url in self._images(victim)]
        assert len(found) < 2, "both versions are there"
        if not found:
            return ABSENT
        alias = victim.side.request("GET", "/1.0/images/aliases/step-moving")
        assert of[alias["metadata"]["target"]] == found[0]
        return found[0]

    def reach(self, victim: Victim, state: str) -> None:
        self.remove(victim)
        if state == _OLD:
            _server().offer_unified("moving", _VERSIONS[_OLD])
            source = {**_source(), "alias": "moving"}
            call(victim, "POST", "/1.0/images", {"source": source, "aliases": [{"name": "step-moving"}]})
        _server().offer_unified("moving", _VERSIONS[_NEW])

    def remove(self, victim: Victim) -> None:
        for url in self._images(victim):
            call(victim, "DELETE", url)

    def _images(self, victim: Victim) -> list[str]:
        found = victim.side.request("GET", "/1.0/images")["metadata"]
        return [url for url in found if url.rsplit("/", 1)[-1] in map(_hash, _VERSIONS.values())]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _refresh(victim: Victim) -> Any:
    return call(victim, "POST", f"/1.0/images/{_hash(_VERSIONS[_OLD])}/refresh")


class Given:
    """The same image in a project of its own on the server itself, which knows it as another server."""

    path = f"/1.0/images/{_FINGERPRINT}?project=step-there"

    def state(self, victim: Victim) -> str:
        if state_at(victim, "/1.0/projects/step-there") == ABSENT:
            return ABSENT
        return state_at(victim, self.path, field="type")

    def reach(self, victim: Victim, state: str) -> None:
        if Brought().state(victim) == ABSENT:
            _bring(victim)
        if state_at(victim, "/1.0/projects/step-there") == ABSENT:
            call(
                victim, "POST", "/1.0/projects", {"name": "step-there", "config": {"features.images": "true"}}
            )
        if self.state(victim) != ABSENT:
            call(victim, "DELETE", self.path)

    def remove(self, victim: Victim) -> None:
        self.reach(victim, ABSENT)
        call(victim, "DELETE", "/1.0/projects/step-there")
        Brought().remove(victim)


def _give(victim: Victim) -> Any:
    """Push it to ourselves, by the secret of an upload; again, where only the outcome got lost."""
    if Given().state(victim) != ABSENT:
        call(victim, "DELETE", Given.path)
    awaited = {"source": {"mode": "push", "fingerprint": _FINGERPRINT}}
    token = victim.side.request("POST", "/1.0/images?project=step-there", awaited)["metadata"]
    body = {
        "target": f"https://{victim.settings().https_address}",
        "certificate": victim.side.request("GET", "/1.0")["metadata"]["environment"]["certificate"],
        "secret": token["metadata"]["secret"],
        "project": "step-there",
    }
    return call(victim, "POST", f"/1.0/images/{_FINGERPRINT}/export", body)


def _bring(victim: Victim) -> Any:
    return call(victim, "POST", "/1.0/images", {"source": _source()})


def _launch(victim: Victim) -> Any:
    return call(victim, "POST", "/1.0/instances", {"name": NAME, "source": _source()})


SCENARIOS = (
    Scenario("image.download", Brought(), ABSENT, (ABSENT, "container", CREATED), _bring),
    Scenario("image.refresh", Followed(), _OLD, (_OLD, _NEW), _refresh),
    Scenario("image.push", Given(), ABSENT, (ABSENT, "container"), _give, keeps=True),
    Scenario("instance.create-remote", Launched(), ABSENT, (ABSENT, STOPPED), _launch, keeps=True),
)
