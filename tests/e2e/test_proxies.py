"""Proxy devices through the stock client: every protocol, both directions, and what ends them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Podium

NAME = "fwd"
# What answers inside: the image has Perl's sockets and little else.
_ECHO = """
use IO::Socket; use IO::Socket::UNIX; $SIG{CHLD} = "IGNORE"; my ($kind, $at, $addr) = @ARGV;
if ($kind eq "udp") {
  my $s = IO::Socket::INET->new(Proto => "udp", LocalAddr => "127.0.0.1", LocalPort => $at) or die;
  while ($s->recv(my $m, 9000)) { $s->send("guest:$m") } }
unlink $at if $kind eq "unix" && $at !~ /^\\0/;
my $s = $kind eq "tcp" ? IO::Socket::INET->new(Listen => 9, LocalAddr => $addr, LocalPort => $at,
  ReuseAddr => 1) : IO::Socket::UNIX->new(Listen => 9, Local => $at); $s or die "no socket: $!";
while (my $c = $s->accept) { next if fork; my $m; while (sysread $c, my $b, 65536) { $m .= $b }
  print $c "guest:$m"; exit }
"""
_ASK = """
use IO::Socket; use IO::Socket::UNIX; my ($kind, $at, $m) = @ARGV;
my $c = $kind eq "unix" ? IO::Socket::UNIX->new(Peer => $at)
  : IO::Socket::INET->new(Proto => $kind, PeerAddr => "127.0.0.1", PeerPort => $at); $c or die "no: $!";
print $c $m; $c->flush; shutdown $c, 1 if $kind ne "udp"; sysread $c, my $b, 9000; print $b;
"""


@pytest.fixture(scope="module")
def guest(podium: Podium) -> Iterator[Podium]:
    podium.lxc("launch", "debian/12", NAME)
    yield podium
    podium.lxc("delete", "--force", NAME)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that others may pass; the path of a socket must be short."""
    found = Path(f"/run/podium-test-{os.getpid()}")
    found.mkdir(exist_ok=True)
    return found


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def _proxy(podium: Podium, *options: str, name: str = "p") -> Iterator[None]:
    podium.lxc("config", "device", "add", NAME, name, "proxy", *options)
    try:
        yield
    finally:
        podium.lxc("config", "device", "remove", NAME, name)


def _echo_inside(podium: Podium, kind: str, at: object, address: str = "127.0.0.1") -> None:
    """Start a server inside and return when it listens."""
    script = f"setsid perl -e '{_ECHO}' {kind} {at} {address} >/dev/null 2>&1 &"
    podium.lxc("exec", NAME, "--", "sh", "-c", script)
    table = {"tcp": "tcp", "udp": "udp", "unix": "unix"}[kind]
    wanted = f":{int(str(at)):04X}" if kind != "unix" else str(at).replace("\\0", "@")
    look = (
        f"for i in $(seq 50); do grep -q -- '{wanted}' /proc/net/{table} && exit 0; sleep 0.1; done; exit 1"
    )
    podium.lxc("exec", NAME, "--", "sh", "-c", look)


def _ask_inside(podium: Podium, kind: str, at: object, message: str) -> str:
    return podium.lxc("exec", NAME, "--", "perl", "-e", _ASK, kind, str(at), message)


def _connected(family: int, address: object) -> socket.socket:
    sock = socket.socket(family)
    sock.settimeout(10)
    sock.connect(address)  # type: ignore[arg-type]
    return sock


def _is_open(port: int) -> bool:
    """Whether the new process listens by now: it is there a moment before."""
    with contextlib.suppress(ConnectionRefusedError), _connected(socket.AF_INET, ("127.0.0.1", port)):
        return True
    return False


def _ask(family: int, address: object, message: bytes) -> bytes:
    with _connected(family, address) as sock:
        sock.sendall(message)
        with contextlib.suppress(OSError):  # the other side has hung up already
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        while data := sock.recv(1 << 16):
            answer += data
        return answer


def _is_hung_up_on(address: tuple[str, int]) -> bool:
    """Whether nobody answers at the other side; whatever comes first, the end or its reason."""
    try:
        return _ask(socket.AF_INET, address, b"x") == b""
    except (ConnectionResetError, BrokenPipeError):
        return True


@contextlib.contextmanager
def _echo_here(family: int, address: object) -> Iterator[socket.socket]:
    """A server on the host that answers each connection with what it said."""
    with socket.socket(family) as server:
        server.bind(address)  # type: ignore[arg-type]
        server.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        client.sendall(b"host:" + client.recv(1 << 16))

        threading.Thread(target=serve, daemon=True).start()
        yield server


def _until(condition: Callable[[], bool], timeout_s: float = 5) -> bool:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_a_port_of_the_host_leads_into_the_guest(guest: Podium) -> None:
    """Whole streams arrive, and each side's end is told to the other."""
    _echo_inside(guest, "tcp", 80)
    port = _free_port()
    with _proxy(guest, f"listen=tcp:127.0.0.1:{port}", "connect=tcp:127.0.0.1:80"):
        message = os.urandom(300_000)
        assert _ask(socket.AF_INET, ("127.0.0.1", port), message) == b"guest:" + message
    with pytest.raises(ConnectionRefusedError):
        _connected(socket.AF_INET, ("127.0.0.1", port))


def test_a_range_of_ports_leads_to_a_range(guest: Podium) -> None:
    _echo_inside(guest, "tcp", 83)
    first = _free_port() // 2 * 2
    listen, connect = f"listen=tcp:127.0.0.1:{first}-{first + 1}", "connect=tcp:127.0.0.1:82-83"
    with _proxy(guest, listen, connect):
        assert _ask(socket.AF_INET, ("127.0.0.1", first + 1), b"x") == b"guest:x"
        assert _is_hung_up_on(("127.0.0.1", first))


def test_a_path_inside_is_found_as_the_guest_sees_it(guest: Podium) -> None:
    """Through a link of the guest's, which must not lead onto the host."""
    guest.lxc("exec", NAME, "--", "ln", "-sfn", "/run", "/srv/link")
    _echo_inside(guest, "unix", "/run/echo.sock")
    port = _free_port()
    with _proxy(guest, f"listen=tcp:127.0.0.1:{port}", "connect=unix:/srv/link/echo.sock"):
        assert _ask(socket.AF_INET, ("127.0.0.1", port), b"x") == b"guest:x"


def test_a_link_inside_leads_to_no_socket_of_the_host(guest: Podium, folder: Path) -> None:
    """Whoever chooses the target inside must not reach what root of the host may reach."""
    path = folder / "secret.sock"
    guest.lxc("exec", NAME, "--", "ln", "-sfn", str(path), "/srv/steal.sock")
    port = _free_port()
    proxy = _proxy(guest, f"listen=tcp:127.0.0.1:{port}", "connect=unix:/srv/steal.sock")
    with _echo_here(socket.AF_UNIX, str(path)), proxy:
        assert _is_hung_up_on(("127.0.0.1", port))
    path.unlink()


def test_a_socket_of_the_host_has_the_owner_and_mode_that_were_asked_for(guest: Podium, folder: Path) -> None:
    _echo_inside(guest, "tcp", 84)
    path = folder / "in.sock"
    with _proxy(guest, f"listen=unix:{path}", "connect=tcp:127.0.0.1:84", "mode=0640", "uid=33", "gid=7"):
        found = path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 33, 7)
        assert _ask(socket.AF_UNIX, str(path), b"x") == b"guest:x"
    assert not path.exists()


def test_a_socket_inside_leads_to_one_of_the_host(guest: Podium, folder: Path) -> None:
    """As people give a guest the host's display or Docker's socket."""
    path = folder / "host.sock"
    options = ("bind=instance", "listen=unix:/run/out.sock", f"connect=unix:{path}", "mode=0600", "uid=33")
    with _echo_here(socket.AF_UNIX, str(path)), _proxy(guest, *options):
        shown = guest.lxc("exec", NAME, "--", "stat", "-c", "%a %u %F", "/run/out.sock")
        assert shown == "600 33 socket\n"
        assert _ask_inside(guest, "unix", "/run/out.sock", "x") == "host:x"
    assert guest.run("exec", NAME, "--", "test", "-e", "/run/out.sock").returncode == 1
    path.unlink()


def test_a_port_inside_leads_to_the_host(guest: Podium) -> None:
    port = _free_port()
    options = ("bind=instance", "listen=tcp:127.0.0.1:99", f"connect=tcp:127.0.0.1:{port}")
    with _echo_here(socket.AF_INET, ("127.0.0.1", port)), _proxy(guest, *options):
        assert _ask_inside(guest, "tcp", 99, "x") == "host:x"


def test_abstract_sockets_lie_in_the_namespace_of_their_side(guest: Podium) -> None:
    with _proxy(guest, "listen=unix:@podium-test", "connect=tcp:127.0.0.1:80"):
        assert _ask(socket.AF_UNIX, "\0podium-test", b"x") == b"guest:x"


def test_datagrams_go_and_come_back(guest: Podium) -> None:
    _echo_inside(guest, "udp", 53)
    port = _free_port()
    with _proxy(guest, f"listen=udp:127.0.0.1:{port}", "connect=udp:127.0.0.1:53"):
        for message in (b"one", b"two"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(10)
                sock.sendto(message, ("127.0.0.1", port))
                assert sock.recv(100) == b"guest:" + message


def test_the_proxy_protocol_names_the_client(guest: Podium) -> None:
    port = _free_port()
    options = (f"listen=tcp:127.0.0.1:{port}", "connect=tcp:127.0.0.1:80", "proxy_protocol=true")
    with _proxy(guest, *options), _connected(socket.AF_INET, ("127.0.0.1", port)) as sock:
        mine = sock.getsockname()[1]
        sock.shutdown(socket.SHUT_WR)
        header = f"PROXY TCP4 127.0.0.1 127.0.0.1 {mine} {port}\r\n"
        assert sock.recv(1000).decode() == f"guest:{header}"


def test_a_taken_port_is_named_and_leaves_nothing(guest: Podium) -> None:
    with _echo_here(socket.AF_INET, ("127.0.0.1", port := _free_port())):
        listen = f"listen=tcp:127.0.0.1:{port}"
        done = guest.run("config", "device", "add", NAME, "p", "proxy", listen, "connect=tcp:127.0.0.1:80")
        words = f"Failed to listen on 127.0.0.1:{port}: listen tcp 127.0.0.1:{port}: bind: address already"
        assert words in done.stderr.decode()
    assert guest.lxc("config", "device", "list", NAME).strip() == ""


def _forwarders(podium: Podium) -> list[Path]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"podium-proxy default/{NAME}/".encode() in (process / "cmdline").read_bytes():
                found.append(process)
    return found


def test_a_forwarder_has_no_privilege_and_lives_as_long_as_its_instance(guest: Podium) -> None:
    """What strangers can reach is nobody: no capability, no way to get one, nothing of root's but sockets."""
    with _proxy(guest, f"listen=tcp:127.0.0.1:{_free_port()}", "connect=tcp:127.0.0.1:80"):
        (process,) = _forwarders(guest)
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
        assert status["Uid"].split() == ["65534"] * 4
        assert status["Groups"].strip() == ""
        assert {int(status[f"Cap{kind}"], 16) for kind in ("Prm", "Eff", "Bnd", "Amb", "Inh")} == {0}
        assert status["NoNewPrivs"] == "1"
        opened = [os.readlink(fd) for fd in (process / "fd").iterdir()]
        assert [name for name in opened if name.startswith("/") and "forwarder.py" not in name] == [
            "/dev/null"
        ]

        guest.lxc("stop", "--force", NAME)
        assert _until(lambda: not _forwarders(guest))
        guest.lxc("start", NAME)
        assert len(_forwarders(guest)) == 1
    assert not _forwarders(guest)


def test_a_forwarder_that_was_killed_comes_back(guest: Podium) -> None:
    """Also one that an earlier service started."""
    _echo_inside(guest, "tcp", 85)
    with _proxy(guest, f"listen=tcp:127.0.0.1:{(port := _free_port())}", "connect=tcp:127.0.0.1:85"):
        for service_dies in (False, True):
            (old,) = _forwarders(guest)
            if service_dies:
                runtime = guest.processes()["runtime"]
                os.kill(runtime, signal.SIGKILL)
                assert _until(lambda: guest.processes().get("runtime", runtime) != runtime, 20)  # noqa: B023
                assert _until(lambda: guest.run("list").returncode == 0, 20)
                assert _forwarders(guest) == [old]
            os.kill(int(old.name), signal.SIGKILL)
            assert _until(lambda: len(_forwarders(guest)) == 1 and _forwarders(guest) != [old], 20)  # noqa: B023
            assert _until(lambda: _is_open(port), 20)
            assert _ask(socket.AF_INET, ("127.0.0.1", port), b"x") == b"guest:x"


def test_translation_needs_no_process_and_a_fixed_address(guest: Podium) -> None:
    """The kernel does the work; the guest sees who connects. Rules go with the device and the instance."""
    bridge = guest.settings.bridge
    network = json.loads(guest.lxc("query", f"/1.0/networks/{bridge}"))["config"]
    base = network["ipv4.address"].rpartition(".")[0]
    host, own, port = f"{base}.1", f"{base}.77", _free_port()
    nat = ("nat=true", f"listen=tcp:{host}:{port}", "connect=tcp:0.0.0.0:7070")
    done = guest.run("config", "device", "add", NAME, "p", "proxy", *nat)
    assert b"Instance has no static IPv4 address assigned" in done.stderr
    guest.lxc("config", "device", "override", NAME, "eth0", f"ipv4.address={own}")
    guest.lxc("restart", "--force", NAME)
    assert _until(lambda: own in guest.lxc("list", NAME), 20)
    _echo_inside(guest, "tcp", 7070, "0.0.0.0")

    with _proxy(guest, *nat):
        assert not _forwarders(guest)
        assert _ask(socket.AF_INET, (host, port), b"x") == b"guest:x"
    with pytest.raises(ConnectionRefusedError):
        _connected(socket.AF_INET, (host, port))
