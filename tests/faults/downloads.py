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


def _bring(victim: Victim) -> Any:
    return call(victim, "POST", "/1.0/images", {"source": _source()})


def _launch(victim: Victim) -> Any:
    return call(victim, "POST", "/1.0/instances", {"name": NAME, "source": _source()})


SCENARIOS = (
    Scenario("image.download", Brought(), ABSENT, (ABSENT, "container", CREATED), _bring),
    Scenario("instance.create-remote", Launched(), ABSENT, (ABSENT, STOPPED), _launch, keeps=True),
)
