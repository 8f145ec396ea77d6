"""Lines of ss: whose socket it is, as far as an unprivileged process may know."""

from __future__ import annotations

import pytest

from services.network.domain.conflicts import Listener
from services.network.kernel.sockets import Server, _listener

HEAD = "udp   UNCONN 0      0"
NAMED = Server(7, "named", 101)
OURS, ALIKE = Server(11, "dnsmasq", 995), Server(12, "dnsmasq", 995)


def _seen(local: str, rest: str, *servers: Server) -> Listener | None:
    return _listener(f"{HEAD} {local} 0.0.0.0:* {rest}", {OURS.pid}, list(servers))


@pytest.mark.parametrize(
    ("local", "address", "interface", "port"),
    [
        ("10.1.2.1:53", "10.1.2.1", "", 53),
        ("0.0.0.0%br0:67", "0.0.0.0", "br0", 67),
        ("*:53", "*", "", 53),
        ("[::]:53", "::", "", 53),
        ("[fe80::1]%br0:53", "fe80::1", "br0", 53),
    ],
)
def test_addresses_of_all_shapes_are_read(local: str, address: str, interface: str, port: int) -> None:
    found = _seen(local, "uid:101 ino:1 sk:1", NAMED)
    assert found == Listener(address, interface, port, "named (process 7)")


def test_root_is_told_the_process_by_the_kernel() -> None:
    found = _seen("0.0.0.0:53", 'users:(("python3",pid=42,fd=3)) ino:1 sk:1')
    assert found == Listener("0.0.0.0", "", 53, "python3 (process 42)")
    assert _seen("0.0.0.0:53", f'users:(("dnsmasq",pid={OURS.pid},fd=3)) ino:1') is None


def test_a_socket_of_our_servers_user_is_ours_unless_another_such_server_runs() -> None:
    """Two Podiums on a host: then it may be either's, and both are not named as ours."""
    assert _seen("10.1.2.1:53", "uid:995 ino:1", OURS) is None
    found = _seen("10.1.2.1:53", "uid:995 ino:1", OURS, ALIKE)
    assert found is not None
    assert found.process == "dnsmasq (process 12)"


def test_an_unknown_program_is_named_by_its_user() -> None:
    found = _seen("0.0.0.0:53", "ino:1 sk:1", NAMED)
    assert found is not None
    assert found.process == "a process of user root"


@pytest.mark.parametrize("line", ["", "udp UNCONN", "Netid State Recv-Q"])
def test_a_line_of_another_shape_is_skipped(line: str) -> None:
    assert _listener(line, set(), []) is None
