"""The host's side of networks: netlink, nftables, dnsmasq, sysctls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path
from typing import TypeVar

from core.configkeys.others import NETWORK
from core.errors import WrongState
from core.logs import get_logger
from core.records import Network, NicReservation
from services.network.domain import render
from services.network.domain.addresses import subnets_of
from services.network.kernel import release
from services.network.kernel.links import Links
from services.network.ports import Link

T = TypeVar("T")
log = get_logger(__name__)
_TIMEOUT_S = 20.0
_FORWARDING = (
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv6/conf/all/forwarding",
)


class LinuxHost:
    """Implements ports.Host. *folder* is <state>/networks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # pyroute2 runs an event loop of its own: it lives in one thread, where none runs yet.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netlink")
        self._links: Links | None = None

    def close(self) -> None:
        if self._links:
            self._thread.submit(self._links.close)
        self._thread.shutdown(wait=False)

    async def links(self) -> list[Link]:
        return await self._netlink(lambda links: links.all())

    async def _netlink(self, work: Callable[[Links], T]) -> T:
        def run() -> T:
            self._links = self._links or Links()
            return work(self._links)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def taken_subnets(self) -> tuple[list[IPv4Network], list[IPv6Network]]:
        v4, v6 = [], []
        for link in await self.links():
            for a in link.addresses:
                if a.family == "inet":
                    v4.append(IPv4Interface(f"{a.address}/{a.prefix}").network)
                else:
                    v6.append(IPv6Interface(f"{a.address}/{a.prefix}").network)
        return v4, v6

    async def ensure_up(self, network: Network) -> None:
        mtu = int(NETWORK.get(network.config, "bridge.mtu"))
        subnets = subnets_of(network.config)
        await self._netlink(lambda links: links.ensure_bridge(network.name, subnets, mtu))
        await asyncio.to_thread(_ensure_forwarding)
        await self._nft(render.nft_rules(network))
        await self._ensure_dnsmasq(network)

    async def ensure_down(self, name: str) -> None:
        await self._stop_dnsmasq(name)
        await self._nft(render.nft_remove(name))
        await self._netlink(lambda links: links.delete(name))
        await asyncio.to_thread(_remove_folder, self._folder / name)

    async def write_nic(self, nic: NicReservation, domain: str) -> None:
        await asyncio.to_thread(self._write_nic, nic, domain)

    async def remove_nic(self, nic: NicReservation) -> None:
        folder = self._folder / nic.network
        for part in ("dhcp", "hosts"):
            (folder / part / _file(nic)).unlink(missing_ok=True)
        await self._release(nic)
        # Removal from --dhcp-hostsdir is noticed on SIGHUP only (dnsmasq(8)).
        if pid := self._pid(nic.network):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)

    async def _release(self, nic: NicReservation) -> None:
        """Give the guest's lease back, unless another MAC holds the address by now."""
        server = await self._gateway(nic.network)
        held = await self.leased(nic.network)
        if not server or held.get(nic.ipv4, "").lower() != nic.hwaddr.lower():
            return
        try:
            release.send(nic.bridge, nic.ipv4, nic.hwaddr, server)
        except OSError as exc:
            log.warning("lease_not_released", address=nic.ipv4, error=str(exc))

    async def _gateway(self, name: str) -> str:
        for link in await self.links():
            if link.name == name:
                return next((a.address for a in link.addresses if a.family == "inet"), "")
        return ""

    async def leased(self, network: str) -> dict[str, str]:
        try:
            lines = (self._folder / network / "leases").read_text().splitlines()
        except OSError:
            return {}
        rows = [line.split() for line in lines]
        return {row[2]: row[1] for row in rows if len(row) >= 4 and "." in row[2]}

    async def is_serving(self, network: str) -> bool:
        return self._pid(network) is not None

    def _write_nic(self, nic: NicReservation, domain: str) -> None:
        folder = self._folder / nic.network
        for part, text in (
            ("dhcp", render.dhcp_entry(nic)),
            ("hosts", render.hosts_entry(nic, domain)),
        ):
            _write_if_changed(folder / part, _file(nic), text)

    async def _ensure_dnsmasq(self, network: Network) -> None:
        folder = self._folder / network.name
        for part in ("dhcp", "hosts"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        argv = render.dnsmasq_argv(network, folder, as_root=os.geteuid() == 0)
        mark = folder / "dnsmasq.argv"
        same = mark.exists() and mark.read_text() == "\n".join(argv)
        if self._pid(network.name) and same:
            return
        await self._stop_dnsmasq(network.name)
        if not any(arg.startswith("--listen-address") for arg in argv):
            return
        code, output = await _run(argv)
        if code:
            raise _dnsmasq_refused(network.name, output)
        mark.write_text("\n".join(argv))

    async def _stop_dnsmasq(self, name: str) -> None:
        pid = self._pid(name)
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        for attempt in range(150):
            if _has_ended(pid):
                return
            if attempt == 100:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.02)

    def _pid(self, name: str) -> int | None:
        """Return the pid of this network's dnsmasq, if the process at that pid really is it."""
        folder = self._folder / name
        try:
            pid = int((folder / "dnsmasq.pid").read_text())
            cmdline = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if f"--pid-file={folder}/dnsmasq.pid".encode() in cmdline else None

    async def _nft(self, script: str) -> None:
        code, output = await _run(["nft", "-f", "-"], stdin=script.encode())
        if code:
            raise WrongState("NFT_REFUSED", f"nftables refused the rules: {output[:300]}")


async def forward_is_blocked() -> bool:
    """Return whether another program (Docker does) drops what is forwarded by default."""
    code, output = await _run(["nft", "list", "chain", "ip", "filter", "FORWARD"])
    return code == 0 and "policy drop" in output


async def _run(argv: list[str], stdin: bytes = b"") -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *argv,
        # No pipe for nothing: uvloop raises when the program ends before an empty write.
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(stdin or None), _TIMEOUT_S)
    return process.returncode or 0, output.decode(errors="replace")


def _has_ended(pid: int) -> bool:
    """Return whether a process is gone or a zombie: only then are its sockets closed.

    Its pid file and its command line vanish earlier, while a successor could not bind yet.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _dnsmasq_refused(network: str, output: str) -> WrongState:
    why = output.strip().splitlines()[-1:] or ["no reason given"]
    hint = ""
    if "Address already in use" in output:
        hint = (
            "; another DNS or DHCP server listens on the network's address: stop it or choose another address"
        )
    return WrongState(
        "DNSMASQ_REFUSED", f"dnsmasq for {network} did not start: {why[0]}{hint}", about=network
    )


def _ensure_forwarding() -> None:
    for path in _FORWARDING:
        try:
            if Path(path).read_text().strip() != "1":
                Path(path).write_text("1")
        except OSError as exc:
            log.warning("forwarding_not_set", path=path, error=str(exc))


def _file(nic: NicReservation) -> str:
    return f"{nic.instance_id}.{nic.device.replace('/', '_')}"


def _write_if_changed(folder: Path, name: str, text: str) -> None:
    """Write under another name and rename: dnsmasq reads a file the moment it appears."""
    path = folder / name
    if path.exists() and path.read_text() == text:
        return
    folder.mkdir(parents=True, exist_ok=True)
    # Names that end in ~ are skipped by dnsmasq.
    temporary = folder / f"{name}~"
    temporary.write_text(text)
    temporary.rename(path)


def _remove_folder(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
