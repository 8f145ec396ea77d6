"""kill -9 of the image service amid imports, copies and deletes: records and files agree afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.image_server import METADATA, ImageServer, serving, tar
from tests.faults.harness import Victim, wait_for

_IMPORTS, _COPIES, _WORKERS = 34, 16, 3


@dataclass
class Store:
    """What clients were told: what is here for certain, what is gone for certain."""

    victim: Victim
    here: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)

    def bring(self, server: ImageServer, number: int) -> None:
        content = tar({"metadata.yaml": METADATA, "rootfs/noise": os.urandom(200_000)})
        fingerprint = hashlib.sha256(content).hexdigest()
        if number < _IMPORTS:
            self._do(lambda: _upload(self.victim, content), self.here, fingerprint)
            return
        server.offer_unified(f"i{number}", content)
        source = {"type": "image", "mode": "pull", "protocol": "simplestreams", "alias": f"i{number}"}
        body = {"source": {**source, "server": server.url}, "aliases": [{"name": f"kill/{number}"}]}
        self._do(lambda: self.victim.side.request("POST", "/1.0/images", body), self.here, fingerprint)

    def drop(self, fingerprint: str) -> None:
        self.here.discard(fingerprint)
        path = f"/1.0/images/{fingerprint}"
        self._do(lambda: self.victim.side.request("DELETE", path), self.gone, fingerprint)

    def _do(self, ask: Callable[[], dict[str, object]], told: set[str], fingerprint: str) -> None:
        """Note the fingerprint when its operation succeeded; what else came of it is not known."""
        with contextlib.suppress(OSError, ValueError, KeyError, http.client.HTTPException):
            answer = ask()
            assert answer["type"] == "async", answer
            done = self.victim.side.request("GET", f"{answer['operation']}/wait?timeout=30")
            if done["metadata"]["status"] == "Success":
                told.add(fingerprint)
                return
        self.failed.append(fingerprint)


def _upload(victim: Victim, content: bytes) -> dict[str, object]:
    with contextlib.closing(victim.side.connect()) as connection:
        connection.request("POST", "/1.0/images", content, {"Content-Type": "application/octet-stream"})
        answer: dict[str, object] = json.loads(connection.getresponse().read())
        return answer


def _work(store: Store, server: ImageServer, numbers: list[int], rng: random.Random) -> None:
    for number in numbers:
        _patiently(lambda number=number: store.bring(server, number))  # type: ignore[misc]
        if store.here and rng.random() < 0.4:
            chosen = rng.choice(sorted(store.here))
            _patiently(lambda chosen=chosen: store.drop(chosen))  # type: ignore[misc]


def _patiently(ask: Callable[[], None]) -> None:
    """Ask again while nobody is there to take it, but not for ever: others go on."""
    for _ in range(20):
        with contextlib.suppress(AssertionError):
            ask()
            return
        time.sleep(0.1)


def test_killing_the_image_service_leaves_no_orphan_and_no_dangling_record(
    victim: Victim, no_leaks: None
) -> None:
    store, rng = Store(victim), random.Random(os.getpid())
    before = _records(victim)
    with serving() as server:
        server.offer()
        order = rng.sample(range(_IMPORTS + _COPIES), _IMPORTS + _COPIES)
        workers = [
            threading.Thread(target=_work, args=(store, server, order[n::_WORKERS], random.Random(n)))
            for n in range(_WORKERS)
        ]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            if rng.random() < 0.8:
                wait_for(lambda: bool(_records(victim)), 30, "an answer")
            time.sleep(rng.uniform(0.1, 1.5))
            victim.kill("image")
        wait_for(lambda: bool(_records(victim)), 30, "an answer")
        wait_for(lambda: not victim.unfinished_operations(), 60, "the end of all operations")
        try:
            _assert_whole(store, before)
        finally:
            for fingerprint in _records(victim) - before:
                done = victim.side.request("DELETE", f"/1.0/images/{fingerprint}")
                victim.side.request("GET", f"{done['operation']}/wait?timeout=30")


def _assert_whole(store: Store, before: set[str]) -> None:
    there = _records(store.victim)
    assert store.here <= there, "what was called imported is gone"
    assert not store.gone & there, "what was called deleted is there"
    assert store.here and store.gone, f"nothing worked at all: {len(store.failed)} failed"
    for fingerprint in there - before:
        assert _exported(store.victim, fingerprint) == fingerprint
    aliases = store.victim.side.request("GET", "/1.0/images/aliases?recursion=1")["metadata"]
    assert {alias["target"] for alias in aliases} <= there
    images = store.victim.state_dir / "images"
    wait_for(lambda: _files(images / "blobs") == _files(images / "squashfs") == there, 10, "no orphans")
    wait_for(lambda: not list((images / "staging").iterdir()), 10, "no leftovers")


def _records(victim: Victim) -> set[str]:
    """Raises: KeyError while nobody answers."""
    answer = victim.side.request("GET", "/1.0/images")
    if answer["type"] == "error":
        raise KeyError(answer["error"])
    return {url.rsplit("/", 1)[-1] for url in answer["metadata"]}


def _files(folder: Path) -> set[str]:
    return {path.name.split(".")[0] for path in folder.iterdir()}


def _exported(victim: Victim, fingerprint: str) -> str:
    with contextlib.closing(victim.side.connect()) as connection:
        connection.request("GET", f"/1.0/images/{fingerprint}/export")
        return hashlib.sha256(connection.getresponse().read()).hexdigest()
