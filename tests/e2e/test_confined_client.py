"""A client whose certificate is confined to one project, over real TLS, after what is not its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Podium, unharmed

MINE, THEIRS, DATA = "confined-own", "confined-other", "confined-data"
ORIGIN = {"Origin": "https://evil.example"}


class Confined:
    """The stock client for its own project; and curl with its certificate for all that it never sends."""

    def __init__(self, podium: Podium, folder: Path) -> None:
        self._podium = podium
        self._folder = folder
        self.base = f"https://{podium.settings.https_address}"

    def lxc(self, *args: str) -> subprocess.CompletedProcess[str]:
        environment = {**self._podium.environment, "LXD_CONF": str(self._folder)}
        return subprocess.run(
            ["lxc", *args], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def send(
        self, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        argv = ["curl", "-sk", "--path-as-is", "-X", method, "-w", "\n%{http_code}", self.base + target]
        argv += ["--cert", str(self._folder / "client.crt"), "--key", str(self._folder / "client.key")]
        for name, value in (headers or {}).items():
            argv += ["-H", f"{name}: {value}"]
        argv += ["--data-binary", json.dumps(body)] if body is not None else []
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
        text, _, code = done.stdout.rpartition("\n")
        return int(code), text


@pytest.fixture(scope="module")
def confined(podium: Podium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Confined]:
    podium.lxc("project", "create", "fence", "-c", "features.images=false", "-c", "restricted=true")
    profile = ("profile", "device", "add", "default", "--project", "fence")
    podium.lxc(*profile, "root", "disk", "path=/", "pool=default")
    podium.lxc(*profile, "eth0", "nic", f"network={podium.settings.bridge}")
    podium.lxc("launch", "debian/12", THEIRS)
    podium.lxc("storage", "volume", "create", "default", DATA)
    words = podium.lxc("config", "trust", "add", "--name", "bob", "--restricted", "--projects", "fence")
    client = Confined(podium, tmp_path_factory.mktemp("confined"))
    added = client.lxc("remote", "add", "pod", words.split()[-1])
    assert not added.returncode, added.stderr
    for argv in (["remote", "switch", "pod"], ["project", "switch", "fence"], ["launch", "debian/12", MINE]):
        done = client.lxc(*argv)
        assert not done.returncode, done.stderr
    with unharmed(podium):
        yield client
    client.lxc("delete", "-f", MINE)
    podium.lxc("delete", "-f", THEIRS)
    podium.lxc("storage", "volume", "delete", "default", DATA)
    podium.lxc("project", "delete", "fence")


def test_it_works_in_its_own_project(confined: Confined) -> None:
    assert "uid=0" in confined.lxc("exec", MINE, "--", "id").stdout
    assert MINE in confined.lxc("list", "--format", "csv").stdout


_OWN = f"/1.0/instances/{MINE}?project=fence"
_DATA = f"/1.0/storage-pools/default/volumes/custom/{DATA}"
_NEW = {"name": "evil", "source": {"type": "image", "alias": "debian/12"}}


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", f"/1.0/instances/{THEIRS}", None),
        ("GET", f"/1.0/instances/{THEIRS}?project=fence", None),
        ("GET", f"/1.0/instances/{THEIRS}/files?path=/etc/shadow", None),
        ("GET", f"/1.0/instances/%2e%2e/instances/{THEIRS}?project=fence", None),
        ("GET", "/1.0/instances?project=default&project=fence", None),
        ("GET", "/1.0/instances?project=fence&all-projects=true", None),
        ("POST", f"/1.0/instances/{THEIRS}/exec?project=default", {"command": ["id"]}),
        ("POST", "/1.0/instances?project=default", _NEW),
        ("POST", "/1.0/instances?project=fence",
         {"name": "evil", "source": {"type": "copy", "source": THEIRS, "project": "default"}}),
        ("POST", "/1.0/instances?project=fence",
         _NEW | {"devices": {"host": {"type": "disk", "source": "/", "path": "/mnt"}}}),
        ("POST", "/1.0/instances?project=fence", _NEW | {"config": {"security.privileged": "true"}}),
        ("POST", "/1.0/instances?project=fence", _NEW | {"config": {"raw.lxc": "lxc.hook.start=/bin/sh"}}),
        ("PATCH", _OWN, {"config": {"environment.A": "x\nlxc.hook.start=/bin/sh"}}),
        ("PATCH", _OWN, {"config": {"limits.kernel.nofile": "1\nlxc.hook.start=/bin/sh"}}),
        ("PATCH", _OWN, {"devices": {"eth0": {"type": "nic", "nictype": "physical", "parent": "none0"}}}),
        ("PATCH", _OWN, {"devices": {"disk": {"type": "unix-block", "source": "/dev/vda"}}}),
        ("PATCH", _OWN,
         {"devices": {"d": {"type": "disk", "pool": "default", "source": DATA, "path": "/d"}}}),
        ("PATCH", _OWN, {"devices": {"p": {"type": "proxy", "listen": "unix:/x", "connect": "tcp:::1:1"}}}),
        ("PATCH", _OWN, {"config": {"raw.idmap": "both 1 0"}}),
        ("POST", "/1.0/instances?project=fence",
         _NEW | {"config": {"volatile.eth0.hwaddr": "00:16:3e:00:00:01 drop\nflush ruleset"}}),
        ("POST", "/1.0/instances?project=fence",
         {"name": "evil", "source": {"type": "migration", "operation": "https://[::1]/", "mode": "pull"}}),
        ("POST", _OWN, {"name": MINE, "migration": True, "project": "default"}),
        ("GET", f"/1.0/instances/{THEIRS}/snapshots?project=default", None),
        ("POST", f"/1.0/instances/{THEIRS}/backups?project=default", {"name": "b"}),
        ("POST", f"/1.0/instances/{THEIRS}/rebuild?project=default", {"source": {"type": "none"}}),
        ("GET", f"/1.0/instances/{THEIRS}/metadata/templates?project=default", None),
        ("POST", "/1.0/storage-pools/default/volumes/custom?project=fence",
         {"name": "evil", "source": {"type": "copy", "name": DATA, "pool": "default", "project": "default"}}),
        ("POST", "/1.0/storage-pools/default/volumes/custom?project=fence",
         {"name": "evil", "source": {"type": "migration", "operation": "https://[::1]/", "mode": "pull"}}),
        ("POST", f"{_DATA}?project=default", {"name": DATA, "migration": True}),
        ("POST", f"{_DATA}?project=fence", {"name": DATA, "migration": True}),
        ("POST", f"{_DATA}?project=default", {"name": DATA, "project": "fence"}),
        ("GET", f"{_DATA}?project=fence", None),
        ("GET", f"{_DATA}/snapshots?project=default", None),
        ("POST", f"{_DATA}/backups?project=default", {"name": "b"}),
        ("POST", "/internal/recover/import?project=fence", {"pools": []}),
        ("POST", "/internal/recover/validate?project=fence", {"pools": []}),
        ("PUT", "/internal/shutdown?project=fence", None),
        ("PATCH", "/1.0/profiles/default", {"description": "mine"}),
        ("POST", "/1.0/images?project=fence", {"source": {"type": "url", "url": "http://127.0.0.1/"}}),
        ("POST", "/1.0/images?project=fence", {"source": {"type": "instance", "name": THEIRS}}),
        ("PUT", "/1.0?project=fence", {"config": {"core.trust_password": "x"}}),
        ("PUT", "/1.0/projects/fence", {"config": {}}),
        ("POST", "/1.0/projects", {"name": "more"}),
        ("POST", "/1.0/certificates", {"token": True, "name": "friend"}),
        ("POST", "/1.0/networks?project=fence", {"name": "evilbr"}),
        ("POST", "/1.0/storage-pools?project=fence", {"name": "evil", "driver": "dir"}),
        ("GET", "/1.0/warnings?project=fence", None),
        ("GET", "/1.0/metrics", None),
        ("GET", "/1.0/events?all-projects=true", None),
        ("GET", "/1.0/events?type=logging&project=fence", None),
    ],
)  # fmt: skip
def test_it_reaches_nothing_else(confined: Confined, method: str, target: str, body: Any) -> None:
    code, text = confined.send(method, target, body)

    assert 400 <= code < 500 or code == 501, text


def test_it_cannot_change_what_it_is(confined: Confined) -> None:
    """CVE-2026-34179: every field of its own certificate, each to what would free it."""
    _, text = confined.send("GET", "/1.0/certificates")
    own = json.loads(text)["metadata"]
    assert len(own) == 1, "it sees no other certificate"

    for change in ({"restricted": False}, {"projects": ["default"]}, {"type": "metrics"}, {"name": "admin"}):
        for method in ("PUT", "PATCH"):
            assert confined.send(method, own[0], change)[0] == 403
    assert confined.send("DELETE", own[0])[0] == 403


def test_what_all_share_does_not_name_others(confined: Confined, podium: Podium) -> None:
    bridge = podium.settings.bridge
    for target in (
        "/1.0/storage-pools/default",
        "/1.0/storage-pools?recursion=1",
        "/1.0/networks?recursion=1",
        f"/1.0/networks/{bridge}",
        f"/1.0/networks/{bridge}/leases",
        "/1.0/profiles/default",
        "/1.0/operations?recursion=1",
        "/1.0/projects?recursion=1",
        "/1.0/metrics",
    ):
        mark = "&" if "?" in target else "?"
        code, text = confined.send("GET", f"{target}{mark}project=fence")
        assert code == 200 and THEIRS not in text, (target, text)


@pytest.mark.parametrize("headers", [ORIGIN, {"Sec-Fetch-Site": "cross-site"}], ids=str)
def test_another_sites_page_cannot_use_its_certificate(confined: Confined, headers: dict[str, str]) -> None:
    state = f"/1.0/instances/{MINE}/state?project=fence"
    code, text = confined.send("PUT", state, {"action": "stop", "force": True}, headers)
    assert code == 403 and "another site" in text

    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade |= {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    assert confined.send("GET", "/1.0/events?project=fence", None, {**upgrade, **headers})[0] == 403
