"""Backups that come in: our own, and those of people who mean harm."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.archives import archive, entry, index, tarball
from tests.e2e.conftest import Podium, unharmed


def send(
    podium: Podium, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[Any, bytes]:
    """Return headers and body of one answer."""
    connection = http.client.HTTPConnection("podium", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(podium.state_dir / "unix.socket"))
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.headers, answer.read()
    finally:
        connection.close()


def post(podium: Podium, body: bytes, **headers: str) -> dict[str, Any]:
    """Upload a backup and return the answer, or the operation once it has ended."""
    sent = {"Content-Type": "application/octet-stream", **headers}
    answer: dict[str, Any] = json.loads(send(podium, "POST", "/1.0/instances", body, **sent)[1])
    if answer["type"] == "async":
        answer = json.loads(send(podium, "GET", f"{answer['operation']}/wait?timeout=30")[1])
    return answer


def why_not(podium: Podium, body: bytes, **headers: str) -> str:
    """Upload what must be refused, and return the sentence."""
    answer = post(podium, body, **headers)
    said = answer.get("error") or answer["metadata"]["err"]
    assert said, "it was not refused"
    code = answer.get("error_code") or answer["metadata"]["status_code"]
    assert 400 <= code < 500 or code == 501, answer
    return str(said)


def test_an_export_can_be_imported_under_another_name(podium: Podium, tmp_path: Path) -> None:
    """Owners, snapshots and configuration come back; a restore gives what the snapshot had."""
    podium.lxc("init", "debian/12", "out", "-c", "user.note=mine")
    podium.lxc("file", "push", "-", "out/root/old", "--uid", "7", "--mode", "0604", input=b"1")
    podium.lxc("snapshot", "out", "s1")
    podium.lxc("file", "delete", "out/root/old")
    podium.lxc("export", "out", f"{tmp_path}/out.tar.gz", "--optimized-storage")
    podium.lxc("delete", "out")

    podium.lxc("import", f"{tmp_path}/out.tar.gz", "back", "-s", "default")

    assert podium.lxc("config", "get", "back", "user.note") == "mine\n"
    assert podium.run("file", "pull", "back/root/old", "-").returncode == 1
    podium.lxc("restore", "back", "s1")
    podium.lxc("start", "back")
    assert podium.lxc("exec", "back", "--", "stat", "-c", "%u %a", "/root/old") == "7 604\n"
    podium.lxc("copy", "back/s1", "back2")
    assert podium.lxc("file", "pull", "back2/root/old", "-") == "1"
    podium.lxc("delete", "-f", "back", "back2")
    assert "back" not in podium.lxc("list", "-f", "csv")


def test_ids_that_another_manager_shifted_are_set_right(podium: Podium) -> None:
    """LXD's archives hold the ids of its disk, and say what it added."""
    shift = '[{"Isuid":true,"Isgid":false,"Hostid":1000000,"Nsid":0,"Maprange":65536}]'
    about = index("shifted", config={"volatile.last_state.idmap": shift})

    assert post(podium, archive(about, uid=1000007))["metadata"]["err"] == ""

    headers, _ = send(podium, "HEAD", "/1.0/instances/shifted/files?path=/etc")
    assert headers["X-LXD-uid"] == "7"
    podium.lxc("delete", "shifted")


ODD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "neither|Unsupported compression"),
    "no archive": (b"hello" * 1000, "Unsupported compression"),
    "a squashfs": (b"hsqs" + bytes(5000), "Unsupported compression"),
    "an empty tarball": (tarball({}), "Unsupported compression|is empty"),
    "no index": (tarball({"backup": None, "backup/container": None}), "Backup is missing"),
    "an index that is a link": (
        tarball({"backup": None, "backup/index.yaml": "-> /etc/passwd"}),
        "Backup is missing",
    ),
    "an index that is a folder": (tarball({"backup": None, "backup/index.yaml": None}), "Backup is missing"),
    "an index of a gigabyte": (archive(b"#" * (2 << 20)), "Backup is missing|larger"),
    "a bomb of aliases": (archive(b"a: &a [x]\nb: [*a, *a]"), "aliases are not allowed"),
    "no map": (archive(b"[1, 2]"), "no map"),
    "no root": (
        tarball({"backup": None, "backup/index.yaml": json.dumps(index()).encode()}),
        "no folder backup/container/rootfs",
    ),
    "a root that is a link": (
        tarball(
            {
                "backup": None,
                "backup/index.yaml": json.dumps(index()).encode(),
                "backup/container": None,
                "backup/container/rootfs": "-> /etc",
            }
        ),
        "no folder backup/container/rootfs",
    ),
    "a parent that is a link": (
        tarball(
            {
                "backup": None,
                "backup/index.yaml": json.dumps(index()).encode(),
                "backup/container": "-> /",
            }
        ),
        "no folder backup/container/rootfs",
    ),
    "a snapshot elsewhere": (
        archive(index(snapshots=(entry("../../../etc"),))),
        "no name of a snapshot|leads out",
    ),
    "a path that climbs": (archive(index(), **{"../x": b""}), "leads out"),
    "an absolute path": (archive(index(), **{"/etc/x": b""}), "not a relative path"),
    "a machine": (archive({**index(), "type": "virtual-machine"}), "containers"),
    "a stream of btrfs": (archive({**index(), "optimized": True}), "driver's own stream"),
    "a raw key": (archive(index(config={"raw.lxc": "lxc.hook.pre-start = /bin/sh"})), "raw.lxc"),
    "a raw key in a snapshot": (
        archive(index(snapshots=(entry("s", config={"raw.lxc": "x"}),))),
        "raw.lxc",
    ),
    "a device that is none": (archive(index(devices={"x": {"type": "none of these"}})), "device"),
    "an unknown architecture": (archive(index(architecture="../../x")), "Architecture isn't supported"),
    "folders without end": (
        archive(index(), **{f"backup/container/rootfs/{n}/{'d/' * 1900}f": b"" for n in range(8)}),
        "more folders in them",
    ),
    "a number of base 60": (archive(b"a: !!int ''"), "not allowed"),
    "an unknown profile": (archive(index(profiles=["nope"])), "nope"),
    "a name that climbs": (archive(index("../../etc/x")), "name|reserved"),
    "no name": (archive(index("")), "name"),
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_backup_is_refused_with_a_sentence(podium: Podium, what: str) -> None:
    """Nine CVEs of 2026 were a backup that ended LXD's daemon; others read or wrote the host's files."""
    body, said = ODD[what]
    with unharmed(podium):
        found = why_not(podium, body)
    assert any(part in found for part in said.split("|")), found
    assert not list((podium.state_dir / "images" / "staging").iterdir())
    assert json.loads(podium.lxc("query", "/1.0/instances?filter=name%20eq%20came")) == []


def test_any_cut_of_a_backup_is_refused(podium: Podium) -> None:
    """Cut anywhere, plain or compressed: a sentence, never a crash or half an instance."""
    whole = archive(index(snapshots=(entry("s"),)))
    packed = gzip.compress(whole + os.urandom(1000))
    with unharmed(podium):
        for cut in (1, 300, 700, 1500):
            why_not(podium, whole[:cut])
        for cut in (1, 20, len(packed) // 2, len(packed) - 5):
            why_not(podium, packed[:cut])
    assert podium.lxc("list", "-f", "csv", "came") == ""


def test_a_name_in_the_header_cannot_leave_its_place(podium: Podium) -> None:
    """GHSA-m857-c7gc-c984: the name given at import became a path."""
    for name in ("../../x", "a/b", "a b", "-x", "x" * 300):
        why_not(podium, archive(index()), **{"X-LXD-name": name})
    why_not(podium, archive(index()), **{"X-LXD-pool": "../x"})
