"""Root inside a container does its worst; whoever looks from outside gets an answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e import raw_http
from tests.e2e.conftest import Podium, unharmed

_DEEDS = r"""
ip link add "$(printf 'x\377')" type veth peer name "$(printf 'y\034z')"
cd /root && mkdir folder && mkfifo pipe && ln -s pipe to-pipe && ln -s / everywhere && ln -s loop loop
ln -s "$(printf 't\377')" link && touch "folder/$(printf 'f\377')"
ln -s /proc/sys/kernel/core_uses_pid to-kernel
touch -d 9999-01-01 future && truncate -s 4T sparse
chmod 7777 future && printf '\033[2J\377' > folder/plain
"""
_PATHS = (
    "folder",
    "pipe",
    "to-pipe",
    "everywhere",
    "loop",
    "link",
    "future",
    "folder/plain",
    "folder/f\udcff",
)


@pytest.fixture(scope="module")
def rogue(podium: Podium) -> Iterator[str]:
    podium.lxc("launch", "debian/12", "rogue")
    podium.lxc("exec", "rogue", "--", "sh", "-ec", _DEEDS)
    with unharmed(podium):
        yield "rogue"
    podium.lxc("delete", "-f", "rogue")


def test_everybody_is_still_listed(podium: Podium, rogue: str) -> None:
    """One guest's interface names once hid all instances."""
    assert rogue in podium.lxc("list", "--format", "csv", "-c", "ns4")
    assert (
        f'name="{rogue}"' in raw_http.send(podium.settings.socket_path, "GET", "/1.0/metrics").body.decode()
    )
    podium.lxc("info", rogue)


@pytest.mark.parametrize("name", _PATHS)
def test_every_file_is_read_or_refused(podium: Podium, rogue: str, name: str) -> None:
    path = quote(f"/root/{name}".encode("utf-8", "surrogateescape"))
    for method in ("GET", "HEAD"):
        reply = raw_http.send(
            podium.settings.socket_path, method, f"/1.0/instances/{rogue}/files?path={path}"
        )
        assert 200 <= reply.status < 300 or 400 <= reply.status < 500, reply


def test_a_link_to_any_bytes_is_read_as_it_is(podium: Podium, rogue: str) -> None:
    target = f"/1.0/instances/{rogue}/files?path=/root/link"
    assert raw_http.send(podium.settings.socket_path, "GET", target).body == b"t\xff"


@pytest.mark.parametrize(
    "path", ["/proc/sys/kernel/core_uses_pid", "/root/to-kernel", "/proc/kmsg", "/sys/fs/cgroup/x", "/proc/x"]
)
def test_the_files_of_a_guest_do_not_include_the_hosts_kernel(podium: Podium, rogue: str, path: str) -> None:
    """The client of one container could become the host's root by a write that the guest is refused."""
    before = Path("/proc/sys/kernel/core_uses_pid").read_text()
    target = f"/1.0/instances/{rogue}/files?path={path}"

    for method in ("GET", "POST", "DELETE"):
        reply = raw_http.send(
            podium.settings.socket_path, method, target, body=b"1" if method == "POST" else b""
        )
        assert reply.is_refusal() or path == "/root/to-kernel", reply

    assert Path("/proc/sys/kernel/core_uses_pid").read_text() == before
