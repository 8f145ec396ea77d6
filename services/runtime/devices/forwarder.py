"""The process of a proxy device: what its listening sockets take is connected to the other side.

Run alone by a bare interpreter (-I -S) with a description as its argument. It imports nothing of ours and
as little as it can, since each device has one. By then it has lost every privilege, and lies in the network
namespace in which it connects. It ends with the instance, of whose init it was given a descriptor.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[[int], None]

CHUNK = 1 << 16
# Two sockets each: what strangers can make us hold stays below half a gigabyte.
MOST_FILES = 8192
MOST_DATAGRAM = 65507
UDP_IDLE_S = 60.0
MOST_CLIENTS = 1024
IN, OUT = select.EPOLLIN, select.EPOLLOUT
AGAIN = (errno.EAGAIN, errno.EINTR, errno.ENOBUFS)
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# openat2(2): RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS; see services/runtime/kernel/beneath.py.
OPENAT2, RESOLVE = 437, 0x10 | 0x02


class Loop:
    """Calls who waits for a descriptor."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.handlers: dict[int, tuple[int, Handler]] = {}

    def set(self, fd: int, events: int, handler: Handler) -> None:
        """Have *handler* called at *events* of *fd*; with none of them nothing of it is heard."""
        known = self.handlers.get(fd)
        if not events:
            self.forget(fd)
            return
        if known is None:
            self.poll.register(fd, events)
        elif known[0] != events:
            self.poll.modify(fd, events)
        self.handlers[fd] = (events, handler)

    def forget(self, fd: int) -> None:
        if self.handlers.pop(fd, None):
            self.poll.unregister(fd)

    def run(self, each_second: Callable[[], None]) -> None:
        due = time.monotonic() + 1
        while True:
            for fd, events in self.poll.poll(1):
                if fd in self.handlers:
                    self.handlers[fd][1](events)
            if time.monotonic() >= due:
                each_second()
                due = time.monotonic() + 1


class Relay:
    """Two sockets, the second still connecting; what one sends the other gets, *first* before it all."""

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        server: socket.socket,
        first: bytes,
        ended: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.ended = ended
        self.socks = (client, server)
        self.waiting = [b"", first]  # by the socket that is to get it
        self.silent = [False, False]  # by the socket that sends no more
        self.is_open = True
        loop.set(server.fileno(), OUT, self.on_connected)

    def on_connected(self, events: int) -> None:
        if self.socks[1].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.close()
        else:
            self.on_event(1, OUT)

    def on_event(self, side: int, events: int) -> None:
        try:
            if events & OUT:
                self.flush(side)
            if self.is_open and events & ~OUT:
                self.read(side)
        except OSError:
            self.close()
        if self.is_open:
            self.wait()

    def read(self, side: int) -> None:
        if self.silent[side] or self.waiting[1 - side]:
            return
        is_stream = self.socks[1 - side].type == socket.SOCK_STREAM
        try:
            data = self.socks[side].recv(CHUNK if is_stream else MOST_DATAGRAM)
        except OSError as exc:
            if exc.errno in AGAIN:
                return
            raise
        self.waiting[1 - side] = data
        self.silent[side] = not data
        self.flush(1 - side)

    def flush(self, side: int) -> None:
        """Send what waits for *side*; and that nothing more comes, once it has all."""
        if self.waiting[side]:
            try:
                sent = self.socks[side].send(self.waiting[side])
            except OSError as exc:
                if exc.errno not in AGAIN:
                    raise
                return
            self.waiting[side] = self.waiting[side][sent:]
        if self.silent[1 - side] and not self.waiting[side]:
            if self.silent[side] or self.socks[side].type != socket.SOCK_STREAM:
                self.close()
            else:
                self.socks[side].shutdown(socket.SHUT_WR)

    def wait(self) -> None:
        for side in (0, 1):
            wants = OUT if self.waiting[side] else 0
            if not self.silent[side] and not self.waiting[1 - side]:
                wants |= IN
            self.loop.set(self.socks[side].fileno(), wants, (self.on_first, self.on_second)[side])

    def on_first(self, events: int) -> None:
        self.on_event(0, events)

    def on_second(self, events: int) -> None:
        self.on_event(1, events)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            for sock in self.socks:
                self.loop.forget(sock.fileno())
                sock.close()
            self.ended()


class Target:
    """The other side. root: a descriptor of the guest's root, beneath which paths are; -1 for the host's."""

    def __init__(self, protocol: str, host: str, root: int) -> None:
        self.protocol = protocol
        self.host = host
        self.root = root
        self.family = socket.AF_UNIX
        if protocol != "unix":
            self.family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def connect(self, port: int) -> socket.socket:
        """Return a socket that is connected, or about to be. Raises: OSError."""
        kind = socket.SOCK_DGRAM if self.protocol == "udp" else socket.SOCK_STREAM
        sock = socket.socket(self.family, kind)
        try:
            sock.setblocking(False)
            if self.protocol == "unix":
                self.connect_unix(sock)
            else:
                self.connect_ip(sock, port)
        except BaseException:
            sock.close()
            raise
        return sock

    def connect_ip(self, sock: socket.socket, port: int) -> None:
        if self.protocol == "tcp":
            tune(sock)
        code = sock.connect_ex((self.host, port))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))

    def connect_unix(self, sock: socket.socket) -> None:
        if self.host.startswith("@"):
            sock.connect("\0" + self.host[1:])
        elif self.root < 0:
            sock.connect(self.host)
        else:
            place = beneath(self.root, self.host)
            try:
                sock.connect(f"/proc/self/fd/{place}")
            finally:
                os.close(place)


def beneath(root: int, path: str) -> int:
    """Open the place *path* as if *root* were "/": links lead as they lead the guest."""
    import ctypes  # only those that need it pay for it

    libc = ctypes.CDLL(None, use_errno=True)
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, RESOLVE)
    name = ctypes.c_char_p(path.encode())
    fd: int = libc.syscall(ctypes.c_long(OPENAT2), root, name, ctypes.byref(how), ctypes.c_size_t(24))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class Streams:
    """A listening stream socket."""

    def __init__(self, loop: Loop, sock: socket.socket, target: Target, port: int, header: bool) -> None:
        self.loop = loop
        self.sock = sock
        self.target = target
        self.port = port
        self.header = header
        sock.setblocking(False)
        self.listen()

    def listen(self) -> None:
        self.loop.set(self.sock.fileno(), IN, self.on_event)

    def on_event(self, events: int) -> None:
        try:
            client, _ = self.sock.accept()
        except OSError as exc:
            if exc.errno in FULL:
                self.loop.forget(self.sock.fileno())  # until a connection has ended
            return
        try:
            client.setblocking(False)
            first = header_of(client) if self.header else b""
            if client.family != socket.AF_UNIX:
                tune(client)
            server = self.target.connect(self.port)
        except OSError:
            client.close()
            return
        Relay(self.loop, client, server, first, self.listen)


def header_of(client: socket.socket) -> bytes:
    """Return the PROXY protocol's line, version 1. Source: haproxy's doc/proxy-protocol.txt."""
    if client.family == socket.AF_UNIX:
        return b"PROXY UNKNOWN\r\n"
    there, here = client.getpeername(), client.getsockname()
    family = "TCP6" if client.family == socket.AF_INET6 else "TCP4"
    return f"PROXY {family} {there[0]} {here[0]} {there[1]} {here[1]}\r\n".encode()


class Datagrams:
    """A listening datagram socket: each client has a socket on the other side, until it is idle."""

    def __init__(self, loop: Loop, sock: socket.socket, target: Target, port: int) -> None:
        self.loop = loop
        self.sock = sock
        self.target = target
        self.port = port
        self.clients: dict[object, tuple[socket.socket, float]] = {}
        sock.setblocking(False)
        loop.set(sock.fileno(), IN, self.on_event)

    def on_event(self, events: int) -> None:
        try:
            data, address = self.sock.recvfrom(1 << 16)
            self.server_of(address).send(data)
        except OSError:
            return

    def server_of(self, address: object) -> socket.socket:
        if address in self.clients:
            server = self.clients[address][0]
        else:
            if len(self.clients) >= MOST_CLIENTS:
                self.drop(min(self.clients, key=lambda a: self.clients[a][1]))
            server = self.target.connect(self.port)
            self.loop.set(server.fileno(), IN, lambda events: self.back(address, server))
        self.clients[address] = server, time.monotonic()
        return server

    def back(self, address: object, server: socket.socket) -> None:
        try:
            self.sock.sendto(server.recv(1 << 16), address)  # type: ignore[call-overload]
            self.clients[address] = server, time.monotonic()
        except OSError as exc:
            if exc.errno not in AGAIN:
                self.drop(address)

    def drop(self, address: object) -> None:
        server, _ = self.clients.pop(address)
        self.loop.forget(server.fileno())
        server.close()

    def drop_idle(self) -> None:
        old = time.monotonic() - UDP_IDLE_S
        for address in [a for a, (_, used) in self.clients.items() if used < old]:
            self.drop(address)


def main() -> None:
    described = json.loads(sys.argv[1])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, MOST_FILES), hard))
    loop = Loop()
    target = Target(described["protocol"], described["host"], described["root"])
    datagrams = []
    for fd, port in described["listen"]:
        sock = socket.socket(fileno=fd)
        if sock.type == socket.SOCK_DGRAM:
            datagrams.append(Datagrams(loop, sock, target, port))
        else:
            Streams(loop, sock, target, port, described["header"])
    with socket.socket(fileno=described["control"]) as control:
        # Who started us notes who we are, and lets us go then; else nobody could end us.
        control.sendall(b"r")
        if control.recv(1) != b"g":
            return
    loop.set(described["init"], IN, lambda events: os._exit(0))

    def each_second() -> None:
        for one in datagrams:
            one.drop_idle()

    loop.run(each_second)


if __name__ == "__main__":
    main()
