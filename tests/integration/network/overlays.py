"""Members as network namespaces on one wire, each with a network service of its own, all on one etcd.

Nothing of it is in the network namespace of the tests: the wire is a bridge in a namespace as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from core.records import Member as MemberRecord
from core.records import Network
from core.rpc.client import channel
from core.settings import Settings
from core.state import codec, keys
from core.state.etcd import EtcdStore
from core.state.store import Txn
from protos.podium.network.v1 import network_pb2 as pb
from protos.podium.network.v1 import network_pb2_grpc as rpc
from tests.integration.network.guests import Namespace

_PATIENCE_S = 20.0


class Member:
    """A host: a namespace with one way out, and the network service in it."""

    def __init__(self, number: int, folder: Path, endpoint: str) -> None:
        self.name, self.address = f"m{number}", f"10.99.0.{number}"
        self.folder = folder / self.name
        for part in ("run", "tls"):
            (self.folder / part).mkdir(parents=True)
        self.namespace = Namespace()
        self._env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PODIUM_")},
            "PODIUM_DIR": str(self.folder),
            "PODIUM_ETCD": endpoint,
            "PODIUM_MEMBER": self.name,
            "PODIUM_RPC": f"{self.address}:9470",
            "PODIUM_GROUP": "root",
        }
        self.settings = Settings.from_env(self._env)
        self.process: subprocess.Popen[bytes] | None = None
        self._channel = channel(self.settings, "network")
        self.networks = rpc.NetworkServiceStub(self._channel)
        self.nics = rpc.NicServiceStub(self._channel)

    def start(self) -> None:
        argv = ["nsenter", "-t", str(self.namespace.process.pid), "-n", sys.executable]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*argv, "-m", "services.network"], env=self._env, stdout=log, stderr=log
            )

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(10)

    async def restart(self) -> None:
        """Start it again, and return when it answers."""
        before = self.said().count("service_started")
        self.start()
        await until(lambda: self.said().count("service_started") > before)

    async def ready(self) -> None:
        await until(lambda: "service_started" in self.said())

    def said(self) -> str:
        return (self.folder / "log").read_text()

    def show(self, *argv: str) -> str:
        """Return what a program says here."""
        entered = ["nsenter", "-t", str(self.namespace.process.pid), "-n", *argv]
        return subprocess.run(entered, capture_output=True, text=True, timeout=10, check=False).stdout

    async def create(self, name: str, type: str, **config: str) -> None:
        named = {key.replace("_", "."): value for key, value in config.items()}
        await self.networks.CreateNetwork(pb.CreateNetworkRequest(name=name, type=type, config=named))

    async def reserve(self, instance: str, network: str, **options: str) -> pb.NicPlan:
        named = {"network": network, **{key.replace("_", "."): value for key, value in options.items()}}
        request = pb.ReserveNicsRequest(
            instance_id=f"id-{instance}",
            project="default",
            instance_name=instance,
            nics=[pb.NicRequest(device="eth0", options=named)],
        )
        return (await self.nics.ReserveNics(request)).nics[0]

    async def plug(self, instance: str, network: str, **options: str) -> Guest:
        plan = await self.reserve(instance, network, **options)
        guest = Guest(instance, plan)
        pid = guest.namespace.process.pid
        await self.nics.PlugNics(pb.PlugNicsRequest(instance_id=f"id-{instance}", pid=pid))
        guest.configure()
        return guest

    async def close(self) -> None:
        await self._channel.close()
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)
        for path in self.folder.glob("networks/*/dnsmasq.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(path.read_text()), signal.SIGKILL)
        self.namespace.close()


class Guest:
    """A namespace with what DHCP would have given it."""

    def __init__(self, name: str, plan: pb.NicPlan) -> None:
        self.name, self.plan = name, plan
        self.namespace = Namespace()
        self.addresses = {a.family: a.address for a in plan.addresses}
        self.ipv4 = self.addresses.get("inet", "")

    def configure(self) -> None:
        run = self.namespace.run
        run("ip", "link", "set", "eth0", "up")
        for address in self.plan.addresses:
            more = ["nodad"] if address.family == "inet6" else []
            run("ip", "address", "add", f"{address.address}/{address.prefix}", "dev", "eth0", *more)
        if self.plan.told.router:
            run("ip", "route", "add", "default", "via", self.plan.told.router)

    def resolve(self, name: str) -> str:
        """Return the address that the DNS server of its network has for *name*; empty for none."""
        import dns.message
        import dns.query
        import dns.rdatatype

        def ask() -> str:
            question = dns.message.make_query(f"{name}.lxd", "A")
            with contextlib.suppress(OSError, dns.exception.Timeout):
                answer = dns.query.udp(question, self.plan.told.router, timeout=1)
                found = [r for rrset in answer.answer for r in rrset if r.rdtype == dns.rdatatype.A]
                return found[0].to_text() if found else ""
            return ""

        return self.namespace.call(ask)


class Cluster:
    """*count* members, and whoever is beyond them on the wire."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self._socket = folder, folder / "etcd.sock:2379"
        self.wire = Namespace()
        self.wire.run("ip", "link", "add", "wire", "type", "bridge")
        self.wire.run("ip", "address", "add", "10.99.0.254/24", "dev", "wire")
        self.wire.run("ip", "link", "set", "wire", "up")
        self._etcd = self._start_etcd()
        self.endpoint = f"unix:{self._socket}"
        self.store = EtcdStore(self.endpoint)
        self.members = [Member(n, folder, self.endpoint) for n in range(1, count + 1)]
        self._guests: list[Guest] = []
        for member in self.members:
            self._join(member)

    def _start_etcd(self) -> subprocess.Popen[bytes]:
        client, peer = "unix://etcd.sock:2379", "unix://peer.sock:2380"
        argv = ["etcd", "--data-dir", str(self.folder / "etcd"), "--logger", "zap", "--unsafe-no-fsync"]
        argv += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        argv += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        argv.append(f"--initial-cluster=default={peer}")
        # Its sockets are named relative to its folder: it takes no paths in URLs.
        with (self.folder / "etcd.log").open("wb") as log:
            return subprocess.Popen(argv, cwd=self.folder, stdout=log, stderr=log)

    def _join(self, member: Member) -> None:
        pid = str(member.namespace.process.pid)
        end = f"w{member.name}"
        self.wire.run("ip", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", pid)
        self.wire.run("ip", "link", "set", end, "master", "wire", "up")
        member.namespace.run("ip", "address", "add", f"{member.address}/24", "dev", "eth0")
        member.namespace.run("ip", "link", "set", "eth0", "up")
        member.namespace.run("ip", "route", "add", "default", "via", "10.99.0.254")

    async def start(self) -> None:
        await until(self._socket.exists)
        txn = Txn()
        for member in self.members:
            txn.put(keys.member(member.name), MemberRecord(member.name, f"{member.address}:8443"))
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                await self.store.commit(txn)
                break
            except Exception:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.1)
        for member in self.members:
            member.start()
        for member in self.members:
            await member.ready()

    async def plug(self, number: int, instance: str, network: str, **options: str) -> Guest:
        """Let a guest live on member *number*, counted from 0."""
        guest = await self.members[number].plug(instance, network, **options)
        self._guests.append(guest)
        return guest

    async def clear(self) -> None:
        """Take back all networks and guests."""
        for guest in self._guests:
            guest.namespace.close()
        self._guests.clear()
        ids = {kv.key.split("/")[-2] for kv in (await self.store.list(keys.NICS)).kvs}
        for number, id in enumerate(sorted(ids)):
            member = self.members[number % len(self.members)]
            await member.nics.ReleaseNics(pb.ReleaseNicsRequest(instance_id=id))
        for kv in (await self.store.list(keys.NETWORKS)).kvs:
            name = codec.decode(Network, kv.value).name
            await self.members[0].networks.DeleteNetwork(pb.DeleteNetworkRequest(name=name))
        for member in self.members:
            await until(lambda m=member: not list((m.folder / "networks").glob("*/")))  # type: ignore[misc]

    async def record(self, network: str) -> Network | None:
        kv = await self.store.get(keys.network(network))
        return codec.decode(Network, kv.value) if kv else None

    async def close(self) -> None:
        for guest in self._guests:
            guest.namespace.close()
        for member in self.members:
            await member.close()
        self.wire.close()
        await self.store.close()
        self._etcd.terminate()
        self._etcd.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)


async def until(holds: Callable[[], bool], timeout_s: float = _PATIENCE_S) -> None:
    """Return when something *holds*. Raises: TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.05)
