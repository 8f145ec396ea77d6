"""As many running instances as a bridge has ports for: answers stay quick, deaths short, nothing is left.

PODIUM_MANY says how many (`make many-test`: 1000); the usual run has a handful. They run nothing but `sleep`,
so that what is measured is us.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.archives import tarball
from tests.faults.harness import Victim, by_many, timed

_COUNT = int(os.environ.get("PODIUM_MANY", "24"))
_METRICS_S, _LIST_S, _BACK_S = 0.5, 1.0, 5.0
_NAMES = [f"many-{number:04d}" for number in range(_COUNT)]
_INIT = b"#!/bin/sh\nexec /bin/sleep 2147483647\n"
_ABOUT = b"architecture: x86_64\ncreation_date: 1700000000\nproperties: {os: sleep, description: sleeps}\n"
_NETWORK, _PROFILE, _IMAGE = "pmany0", "many", "many"


@pytest.fixture
def many(victim: Victim, tmp_path: Path) -> Iterator[Victim]:
    """A Podium with an image of a program that sleeps, and a network that is large enough."""
    (tmp_path / "image.tar").write_bytes(_image())
    lxc = victim.side.lxc
    lxc("image", "import", str(tmp_path / "image.tar"), "--alias", _IMAGE)
    lxc("network", "create", _NETWORK, "ipv4.address=10.79.240.1/20", "ipv6.address=none", "ipv4.nat=false")
    lxc("profile", "create", _PROFILE)
    lxc("profile", "device", "add", _PROFILE, "root", "disk", "path=/", "pool=default")
    lxc("profile", "device", "add", _PROFILE, "eth0", "nic", f"network={_NETWORK}", "name=eth0")
    try:
        yield victim
    finally:
        victim.side.delete_all("many-")
        for what in ("profile", "network", "image"):
            victim.side.try_lxc(what, "delete", {"profile": _PROFILE, "network": _NETWORK}.get(what, _IMAGE))


def test_many_run_and_answers_stay_quick(many: Victim, no_leaks: None) -> None:
    by_many(_NAMES, lambda name: many.side.lxc("launch", _IMAGE, name, "--profile", _PROFILE))

    pids = many.pids("many-")
    assert sorted(pids) == _NAMES
    assert len({pid for pid in pids.values() if pid}) == _COUNT
    answers_are_quick(many)
    for service in ("runtime", "network", "gateway"):
        many.kill(service)
        assert timed(many.wait_until_it_answers) < _BACK_S
        assert many.pids("many-") == pids
        many.side.lxc("exec", _NAMES[-1], "--", "/bin/sh", "-c", "true")

    by_many(_NAMES, lambda name: many.side.lxc("delete", "--force", name))

    assert many.side.names("many-") == []


def answers_are_quick(victim: Victim) -> None:
    """The median of five: others work on these processors too."""
    asks: dict[str, tuple[Callable[[], Any], float]] = {
        "metrics": (lambda: _scraped(victim), _METRICS_S),
        "recursion=2": (lambda: victim.side.request("GET", "/1.0/instances?recursion=2"), _LIST_S),
        "lxc list": (lambda: victim.side.lxc("list", "--format", "json"), _LIST_S),
    }
    seconds = {name: sorted(timed(ask) for _ in range(5))[2] for name, (ask, _) in asks.items()}
    print(seconds)
    assert all(seconds[name] < most for name, (_, most) in asks.items()), seconds


def _scraped(victim: Victim) -> int:
    connection = victim.side.connect()
    try:
        connection.request("GET", "/1.0/metrics")
        return len(connection.getresponse().read())
    finally:
        connection.close()


def _image() -> bytes:
    """Return an image of the host's shell, its `sleep`, and what the two are linked with."""
    files: dict[str, bytes | str | None] = {"metadata.yaml": _ABOUT, "rootfs/sbin/init": _INIT}
    for program in ("/bin/sh", "/bin/sleep"):
        for path in (program, *_libraries(program)):
            files[f"rootfs{path}"] = Path(path).read_bytes()
    folders = {str(parent) for path in files for parent in Path(path).parents} - {"."}
    empty = {f"rootfs/{name}" for name in ("proc", "sys", "dev", "etc", "tmp", "run")}
    return tarball({**dict.fromkeys(sorted(folders | empty)), **files})


def _libraries(program: str) -> list[str]:
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return [word for word in told.split() if word.startswith("/")]
