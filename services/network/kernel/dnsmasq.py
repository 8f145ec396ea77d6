"""One dnsmasq per network: its process, its leases, and the files that tell it of NICs.

Files in --dhcp-hostsdir and --hostsdir are noticed the moment they appear; what changed or went away in
the first only on SIGHUP. Source: dnsmasq(8).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

from core.configkeys.network import RAW
from core.errors import WrongState
from core.logs import get_logger
from core.records import Network, NicReservation
from services.network.domain import dnsmasq as render
from services.network.domain.addresses import subnets_of
from services.network.kernel import release, sockets
from services.network.kernel.programs import cmdline, has_ended, run

log = get_logger(__name__)
_PARTS = ("dhcp", "hosts")


class Dnsmasq:
    """The servers below *folder*, which is <state>/networks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def ensure(self, network: Network, index: int) -> None:
        """Start the network's server unless it runs as wanted on the bridge with that interface index.

        Raises: WrongState naming what is in the way.
        """
        folder = self._folder / network.name
        argv = render.argv(network, folder, as_root=os.geteuid() == 0)
        mark = folder / "dnsmasq.argv"
        # Its DHCP socket is bound to an index, so that a bridge made anew needs a server started anew.
        raw = network.config.get(RAW, "")
        wanted = "\n".join([*argv, str(index), raw])
        same = mark.exists() and mark.read_text(errors="replace") == wanted
        if self.pid(network.name) and same:
            return
        await self.stop(network.name)
        if not argv:
            return
        if raw:
            (folder / render.RAW_FILE).write_text(f"{raw}\n")
        code, output = await run(argv)
        if code:
            raise await _refused(network, output)
        mark.write_text(wanted)

    async def stop(self, name: str) -> None:
        pid = self.pid(name)
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        for attempt in range(300):
            if has_ended(pid):
                return
            if attempt == 200:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.002 if attempt < 20 else 0.01)

    def pid(self, name: str) -> int | None:
        """Return the pid of this network's dnsmasq, if the process at that pid really is it."""
        folder = self._folder / name
        try:
            pid = int((folder / "dnsmasq.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if f"--pid-file={folder}/dnsmasq.pid" in cmdline(pid) else None

    def pids(self) -> set[int]:
        return {pid for name in self.names() if (pid := self.pid(name))}

    def names(self) -> list[str]:
        """Return the names of the networks that have a folder here."""
        if not self._folder.exists():
            return []
        return sorted(path.name for path in self._folder.iterdir() if path.is_dir())

    def ensure_folder(self, name: str) -> Path:
        for part in _PARTS:
            (self._folder / name / part).mkdir(parents=True, exist_ok=True)
        return self._folder / name

    def remove_folder(self, name: str) -> None:
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def leased(self, network: str) -> dict[str, str]:
        """Return leased IPv4 addresses and the MACs that hold them; what is no lease is passed over.

        A host that lost power may have half a line here, or bytes of something else.
        """
        try:
            lines = (self._folder / network / "leases").read_text(errors="replace").splitlines()
        except OSError:
            return {}
        rows = [line.split() for line in lines]
        return {row[2]: row[1].lower() for row in rows if len(row) >= 4 and _is_ipv4(row[2])}

    def write_nics(
        self, network: Network, nics: list[NicReservation], far: Sequence[NicReservation] = ()
    ) -> None:
        """Tell the server of NICs; of those *far* away the names alone. Blocks shortly."""
        folder, done = self._folder / network.name, set[str]()
        for nic in nics:
            done.add(_write_if_changed(folder / "dhcp", _file(nic), render.dhcp_entry(network, nic)))
            done.add(_write_if_changed(folder / "hosts", _file(nic), render.hosts_entry(network, nic)))
        for nic in far:
            done.add(_write_if_changed(folder / "dhcp", _file(nic), ""))
            done.add(_write_if_changed(folder / "hosts", _file(nic), render.hosts_entry(network, nic)))
        if "changed" in done:
            self.reread(network.name)

    def remove_nic(self, network: Network | None, nic: NicReservation) -> None:
        """Forget a NIC and give its lease back. Blocks shortly."""
        folder = self._folder / nic.network
        for part in _PARTS:
            (folder / part / _file(nic)).unlink(missing_ok=True)
        if network:
            self._give_back(network, nic)
        self.reread(nic.network)

    def remove_strays(
        self, network: str, known: list[NicReservation], far: Sequence[NicReservation] = ()
    ) -> list[str]:
        """Remove the files of NICs that are not among *known*, and return their names."""
        near, found = {_file(nic) for nic in known}, set()
        names = {"dhcp": near, "hosts": near | {_file(nic) for nic in far}}
        for part, wanted in names.items():
            for path in (self._folder / network / part).glob("*"):
                if path.name.removesuffix("~") not in wanted:
                    path.unlink(missing_ok=True)
                    found.add(path.name)
        if found:
            self.reread(network)
        return sorted(found)

    def reread(self, network: str) -> None:
        if pid := self.pid(network):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)

    def _give_back(self, network: Network, nic: NicReservation) -> None:
        """Release the guest's lease, unless another MAC holds the address by now."""
        if self.leased(network.name).get(nic.ipv4, "") == nic.hwaddr.lower():
            self.release(network, nic.ipv4, nic.hwaddr)

    def release(self, network: Network, address: str, hwaddr: str) -> None:
        """Say that who held *address* is gone. It is a datagram, so it may get lost: look again."""
        server = subnets_of(network.config).ipv4
        if not server:
            return
        try:
            release.send(network.name, address, hwaddr, str(server.ip))
        except OSError as exc:
            log.warning("lease_not_released", address=address, error=str(exc))


async def _refused(network: Network, output: str) -> WrongState:
    why = output.strip().splitlines()[-1:] or ["no reason given"]
    hint = ""
    if "in use" in output:
        found = await sockets.listening(set())
        who = " and ".join(sorted({s.process for s in found if not s.interface})) or "another program"
        hint = f"; {who} listens there: stop it, or choose another address or dns.mode=none"
    return WrongState(
        "DNSMASQ_REFUSED", f"dnsmasq for {network.name} did not start: {why[0]}{hint}", about=network.name
    )


def _file(nic: NicReservation) -> str:
    return f"{nic.instance_id}.{nic.device.replace('/', '_')}"


def _is_ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def _write_if_changed(folder: Path, name: str, text: str) -> str:
    """Make *folder*/*name* hold *text* and return "same", "new" or "changed"; no text means no file.

    Written under another name and renamed: dnsmasq reads a file the moment it appears.
    """
    path = folder / name
    old = path.read_text(errors="replace") if path.exists() else ""
    if old == text:
        return "same"
    if not text:
        path.unlink()
        return "changed"
    # Names that end in ~ are skipped by dnsmasq.
    temporary = folder / f"{name}~"
    temporary.write_text(text)
    temporary.rename(path)
    return "changed" if old else "new"
