"""Guests as network namespaces on a bridge, and one beyond the host, with sockets in each of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from core.netrecords import AclRule, NetworkAcl
from core.records import Network, NicReservation
from core.state.memory import MemoryStore
from services.network.kernel.host import LinuxHost
from services.network.store import NetworkStore
from services.network.usecases.acls import Acls
from services.network.usecases.addresssets import AddressSets
from services.network.usecases.listeners import Listeners, balancer_kind, forward_kind
from services.network.usecases.networks import Networks
from services.network.usecases.nics import Nics, Owner, Wanted
from tests import subnets

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
_WAIT_S = 1.0
INSIDE, BEYOND = subnets.net4(0), subnets.net4(1)
OUTSIDE, HOST_END = f"{BEYOND}.2", f"{BEYOND}.1"


class Namespace:
    """A network namespace; what runs in it is a thread of ours."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["unshare", "-n", "sleep", "120"])
        while os.readlink(f"/proc/{self.process.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            pass
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)
        self.run("ip", "link", "set", "lo", "up")
        self._servers: list[socket.socket] = []

    def _enter(self) -> None:
        with Path(f"/proc/{self.process.pid}/ns/net").open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def call(self, work: Callable[[], T]) -> T:
        return self._thread.submit(work).result()

    def run(self, *argv: str) -> None:
        subprocess.run(["nsenter", "-t", str(self.process.pid), "-n", *argv], check=True, timeout=20)

    def socket(self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
        made = self.call(lambda: socket.socket(family, kind))
        made.settimeout(_WAIT_S)
        return made

    def serve(self, port: int, *, address: str = "0.0.0.0") -> None:
        """Answer on a TCP and a UDP port with who asked, as it is seen here."""
        tcp, udp = self.socket(), self.socket(socket.SOCK_DGRAM)
        for server in (tcp, udp):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((address, port))
            server.settimeout(None)
        tcp.listen()
        self._servers += [tcp, udp]
        threading.Thread(target=_serve_tcp, args=(tcp,), daemon=True).start()
        threading.Thread(target=_serve_udp, args=(udp,), daemon=True).start()

    def ask(self, address: str, port: int, *, udp: bool = False) -> str:
        """Return as whom a server sees us; empty when it cannot be reached."""
        with self.socket(socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as asking:
            try:
                asking.connect((address, port))
                asking.send(b"?")
                return asking.recv(100).decode()
            except OSError:
                return ""

    def close(self) -> None:
        for server in self._servers:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        self._thread.shutdown(wait=False)
        self.process.kill()
        self.process.wait()


def _serve_tcp(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, peer = server.accept()
            threading.Thread(target=_answer, args=(connection, peer[0]), daemon=True).start()


def _answer(connection: socket.socket, peer: str) -> None:
    with connection, contextlib.suppress(OSError):
        while connection.recv(100):
            connection.send(peer.encode())


def _serve_udp(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            _, peer = server.recvfrom(100)
            if not peer:  # it was closed
                return
            server.sendto(peer[0].encode(), peer)


class Site:
    """A network in a store in memory, guests on it, and one namespace beyond the host."""

    def __init__(self, folder: Path) -> None:
        self.name = f"pt{secrets.token_hex(4)}"
        self.store, self.host = NetworkStore(MemoryStore()), LinuxHost(folder)
        self.networks, self.nics = Networks(self.store, self.host), Nics(self.store, self.host)
        self.acls = Acls(self.store, self.networks, self.host)
        self.sets = AddressSets(self.store, self.networks, self.host)
        self.forwards = Listeners(self.store, self.networks, self.host, forward_kind(self.store))
        self.balancers = Listeners(self.store, self.networks, self.host, balancer_kind(self.store))
        self.guests = [Namespace() for _ in range(2)]
        self.outside = Namespace()

    async def start(self) -> None:
        await self.store.start()
        await self.networks.create(Network(self.name, config={"ipv4.address": f"{INSIDE}.1/24"}))
        self._reach_outside()

    def _reach_outside(self) -> None:
        """The far end knows the way back, so that nothing has to be translated."""
        end = f"po{secrets.token_hex(4)}"
        pid = str(self.outside.process.pid)
        peer = ["peer", "name", "eth0", "netns", pid]
        for argv in (
            ["ip", "link", "add", end, "type", "veth", *peer],
            ["ip", "address", "add", f"{HOST_END}/24", "dev", end],
            ["ip", "link", "set", end, "up"],
        ):
            subprocess.run(argv, check=True, timeout=20)
        self.outside.run("ip", "address", "add", f"{OUTSIDE}/24", "dev", "eth0")
        self.outside.run("ip", "link", "set", "eth0", "up")
        self.outside.run("ip", "route", "add", "default", "via", HOST_END)

    def id(self, number: int) -> str:
        """Names of interfaces are made of it, and they are the host's."""
        return f"{self.name}-{number}"

    async def plug(self, number: int, **options: str) -> NicReservation:
        named = {key.replace("_", "."): value for key, value in options.items()}
        address = f"{INSIDE}.{10 + number}"
        wanted = [Wanted("eth0", {"network": self.name, "ipv4.address": address, **named})]
        [nic] = await self.nics.reserve(Owner(self.id(number), "default", f"c{number}"), wanted)
        if await self.nics.plug(self.id(number), self.guests[number].process.pid):
            guest = self.guests[number]
            guest.run("ip", "address", "add", f"{nic.ipv4}/24", "dev", "eth0")
            guest.run("ip", "link", "set", "eth0", "up")
            guest.run("ip", "route", "add", "default", "via", f"{INSIDE}.1")
        return nic

    def plugged(self) -> list[NicReservation]:
        return self.store.nics_on(self.name)

    async def acl(
        self, name: str, *, ingress: tuple[AclRule, ...] = (), egress: tuple[AclRule, ...] = ()
    ) -> None:
        """Make it, or change it."""
        wanted = NetworkAcl(project="default", name=name, ingress=ingress, egress=egress)
        if any(e.record.name == name for e in self.acls.entries("default")):
            await self.acls.update("default", name, wanted, expected_revision=0)
        else:
            await self.acls.create(wanted)

    async def set(self, **config: str) -> None:
        named = {key.replace("_", "."): value for key, value in config.items()}
        await self.networks.update(self.name, named, "", merge=True, expected_revision=0)

    async def close(self) -> None:
        await self.host.ensure_down(self.name)
        await self.store.stop()
        self.host.close()
        for namespace in (*self.guests, self.outside):
            namespace.close()


@contextlib.contextmanager
def connected(namespace: Namespace, address: str, port: int) -> Iterator[Callable[[], bool]]:
    """Yield whether what goes through one connection still arrives."""
    with namespace.socket() as connection:
        connection.connect((address, port))

        def is_alive() -> bool:
            try:
                connection.send(b"?")
                return bool(connection.recv(100))
            except OSError:
                return False

        yield is_alive
