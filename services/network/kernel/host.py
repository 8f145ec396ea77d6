"""The host's side of networks: netlink, nftables, dnsmasq and kernel settings put together."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TypeVar

from core.configkeys.nic import IPVLAN, ROUTED
from core.errors import WrongState
from core.files import replace_file
from core.records import Network, NicReservation
from services.network.domain import render
from services.network.domain.aclrules import has_acls
from services.network.domain.acls import named_in
from services.network.domain.bridge import BridgePlan, plan_bridge
from services.network.domain.conflicts import Rules, Seen
from services.network.domain.filters import has_filters
from services.network.domain.overlay import Mesh, device_of
from services.network.domain.rulebook import Rulebook
from services.network.kernel import loops, probe, sockets, subnets, sysctls
from services.network.kernel.acllog import AclLog
from services.network.kernel.dnsmasq import Dnsmasq
from services.network.kernel.esp import has_esp
from services.network.kernel.ifaces import index_of
from services.network.kernel.links import Links
from services.network.kernel.nft import Nft, read
from services.network.kernel.uplinks import mtus, uplinks
from services.network.ports import Link

T = TypeVar("T")


class LinuxHost:
    """Implements ports.Host. *folder* is <state>/networks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._dnsmasq = Dnsmasq(folder)
        # pyroute2 runs an event loop of its own: it lives in one thread, where none runs yet.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netlink")
        self._links: Links | None = None
        self._nft = Nft()
        self._log = AclLog(folder.parent / "acl-logs")

    def close(self) -> None:
        self._log.close()
        if self._links:
            self._thread.submit(self._links.close)
        self._thread.shutdown(wait=False)

    async def links(self) -> list[Link]:
        return await self._netlink(lambda links: links.all())

    async def names(self) -> set[str]:
        return {name for _, name in socket.if_nameindex()}

    async def uplinks(self) -> set[str]:
        return await asyncio.to_thread(uplinks)

    async def _netlink(self, work: Callable[[Links], T]) -> T:
        def run() -> T:
            self._links = self._links or Links(str(self._folder))
            return work(self._links)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def taken_subnets(self) -> tuple[list[IPv4Network], list[IPv6Network]]:
        subnets = [subnet for _, subnet in await self._subnets()]
        v4 = [net for net in subnets if isinstance(net, IPv4Network)]
        return v4, [net for net in subnets if isinstance(net, IPv6Network)]

    async def _subnets(self) -> list[tuple[str, IPv4Network | IPv6Network]]:
        return await asyncio.to_thread(subnets.found)

    # --- networks --------------------------------------------------------------------------------

    async def ensure_up(self, network: Network, nics: Iterable[NicReservation], book: Rulebook) -> None:
        # The folder first: it is what tells the next one, after a crash, that the rest is ours.
        folder = await asyncio.to_thread(self._dnsmasq.ensure_folder, network.name)
        plan = plan_bridge(network)
        before = await asyncio.to_thread(_lines, folder / "ports")
        index = await self._netlink(lambda links: links.ensure_bridge(plan, before))
        await asyncio.to_thread(_write_lines, folder / "ports", plan.external)
        nics = list(nics)
        await self._rejoin(folder / "index", index, {nic.host_name for nic in nics})
        await self._ensure_tunnels(plan, index, folder / "tunnels")
        if mesh := book.mesh:
            await self._netlink(lambda links: links.overlays.ensure(mesh, index))
        await asyncio.to_thread(sysctls.ensure_forwarding, network)
        await asyncio.to_thread(sysctls.ensure_neighbours)
        await self.ensure_rules(network, nics, book)
        await self._dnsmasq.ensure(network, index)

    async def _rejoin(self, mark: Path, index: int, names: set[str]) -> None:
        """When the bridge is not the one that was, join the NICs of running instances to it again."""
        if await asyncio.to_thread(_lines, mark) != (str(index),):
            if names:
                await self._netlink(lambda links: links.ensure_joined(index, names))
            await asyncio.to_thread(_write_lines, mark, (str(index),))

    async def _ensure_tunnels(self, plan: BridgePlan, index: int, mark: Path) -> None:
        """The mark says first what may be there: so that a crash leaves nothing that nobody knows."""
        before = await asyncio.to_thread(_noted, mark)
        if not (before or plan.tunnels):
            return
        wanted = {tunnel.device: repr(tunnel) for tunnel in plan.tunnels}
        for device in wanted.keys() - before.keys():
            if index_of(device) is not None:
                said = f"This host has an interface {device} already, which the tunnel would have to be"
                raise WrongState("NAME_TAKEN", said, about=device)
        await asyncio.to_thread(
            _note, mark, {**dict.fromkeys([*before, *wanted], ""), **_same(before, wanted)}
        )
        await self._netlink(lambda links: links.ensure_tunnels(plan, index, before))
        await asyncio.to_thread(_note, mark, wanted)

    async def can_encrypt(self) -> bool:
        return await has_esp()

    async def ensure_down(self, name: str) -> None:
        tunnels = await asyncio.to_thread(_noted, self._folder / name / "tunnels")
        if tunnels:
            await self._netlink(lambda links: links.remove_tunnels(tunnels))
        await self._dnsmasq.stop(name)
        await asyncio.to_thread(self._nft.run, render.nft_remove(name))
        await self._netlink(lambda links: links.overlays.remove(device_of(name)))
        await self._netlink(lambda links: links.delete_bridge(name))
        await asyncio.to_thread(self._dnsmasq.remove_folder, name)

    async def follow(self, network: Network, mesh: Mesh) -> None:
        await self._netlink(lambda links: links.follow(network.name, mesh))

    async def ensure_rules(self, network: Network, nics: Iterable[NicReservation], book: Rulebook) -> None:
        nics, book = list(nics), replace(book, log_group=self._log.group)
        if has_acls(network, nics):
            is_seen = await asyncio.to_thread(sysctls.ensure_bridged_seen)
            if not is_seen and any(named_in(nic.options) for nic in nics):
                raise _no_bridge_firewall(network)
            self._log.open()
        script = render.nft_rules(network, nics, book)
        await asyncio.to_thread(self._ensure_rules, network.name, script)
        await self.ensure_loops(nics, book)

    async def ensure_loops(self, nics: Iterable[NicReservation], book: Rulebook) -> None:
        wrong = await asyncio.to_thread(loops.wrong, list(nics), book.targets())
        if wrong:
            await self._netlink(lambda links: links.plugs.set_loops(wrong))

    async def logged(self, acl_id: str) -> bytes:
        return await asyncio.to_thread(self._log.read, acl_id)

    async def forget_log(self, acl_id: str) -> None:
        await asyncio.to_thread(self._log.forget, acl_id)

    def _ensure_rules(self, name: str, script: str) -> None:
        """Replace the rules unless they are as they were after the same script: what is right stays."""
        mark = self._folder / name / "rules"
        if _lines(mark) == (self._fingerprint(name, script),):
            return
        try:
            self._nft.run(script)
        except WrongState:
            # Chains of an older version may be other than what they are to be. Alone it would say why not.
            self._nft.run(render.nft_remove(name) + script)
        _write_lines(mark, (self._fingerprint(name, script),))

    def _fingerprint(self, name: str, script: str) -> str:
        table = render.table_name(name)
        listed = [self._nft.find(f"list table {family} {table}") for family in render.TABLE_FAMILIES]
        return hashlib.sha256("\0".join([script, *listed]).encode()).hexdigest()

    def is_serving(self, network: str) -> bool:
        return self._dnsmasq.pid(network) is not None and index_of(network) is not None

    async def made(self) -> list[str]:
        return await asyncio.to_thread(self._dnsmasq.names)

    # --- NICs ------------------------------------------------------------------------------------

    async def write_nics(
        self, network: Network, nics: Iterable[NicReservation], far: Iterable[NicReservation] = ()
    ) -> None:
        await asyncio.to_thread(self._dnsmasq.write_nics, network, list(nics), list(far))

    async def remove_nic(self, network: Network | None, nic: NicReservation) -> None:
        await asyncio.to_thread(self._dnsmasq.remove_nic, network, nic)

    async def remove_strays(
        self, network: str, known: list[NicReservation], far: Iterable[NicReservation] = ()
    ) -> list[str]:
        return await asyncio.to_thread(self._dnsmasq.remove_strays, network, known, list(far))

    async def leased(self, network: str) -> dict[str, str]:
        return await asyncio.to_thread(self._dnsmasq.leased, network)

    async def release_lease(self, network: Network, address: str, hwaddr: str) -> None:
        await asyncio.to_thread(self._dnsmasq.release, network, address, hwaddr)

    async def plug(self, nic: NicReservation, pid: int) -> bool:
        if nic.nictype == ROUTED:
            await probe.refuse_used(nic)
            await asyncio.to_thread(sysctls.ensure_routed, nic.parent, nic.options)
        if not nic.network and has_filters(nic):
            await asyncio.to_thread(self._filter, nic)
        made = await self._netlink(lambda links: links.plugs.ensure(nic, pid))
        if nic.nictype == ROUTED:
            await asyncio.to_thread(sysctls.ensure_routed, nic.host_name, nic.options)
        return made

    async def ensure_parent(self, nic: NicReservation) -> None:
        if nic.vlan:
            await self._netlink(lambda links: links.plugs.ensure_vlan(nic))
        if nic.nictype == IPVLAN:
            await self._netlink(lambda links: links.plugs.refuse_ipvlan(nic))

    async def remove_unused(self) -> None:
        await self._netlink(lambda links: links.plugs.remove_unused_shapers())

    async def unplug(self, nic: NicReservation) -> None:
        found = await self.links() if nic.taken else []
        await self.unplug_side(nic)
        await self._netlink(lambda links: links.plugs.remove(nic, found))

    async def unplug_side(self, nic: NicReservation) -> None:
        await self._netlink(lambda links: links.plugs.remove_side(nic))
        if not nic.network:
            await asyncio.to_thread(self._unfilter, nic)

    async def ensure_filter(self, nic: NicReservation) -> None:
        if (self._folder / render.nic_table(nic)).exists():
            await asyncio.to_thread(self._filter, nic)

    def _filter(self, nic: NicReservation) -> None:
        # The mark first: it tells whoever cleans up after us that there is a table.
        name, script = render.nic_table(nic), render.nic_rules(nic)
        mark = self._folder / name
        mark.touch()
        if _lines(mark) != (self._fingerprint(name, script),):
            self._nft.run(script)
            _write_lines(mark, (self._fingerprint(name, script),))

    def _unfilter(self, nic: NicReservation) -> None:
        mark = self._folder / render.nic_table(nic)
        if mark.exists():
            self._nft.run(render.nft_remove(render.nic_table(nic)))
            mark.unlink(missing_ok=True)

    # --- conflicts -------------------------------------------------------------------------------

    async def seen(self) -> Seen:
        names = await self.made()
        ours, ways = {render.table_name(name) for name in names}, await asyncio.to_thread(mtus)
        return Seen(
            tables=await _forwarding_tables(ours),
            listeners=tuple(await sockets.listening(self._dnsmasq.pids())),
            subnets=tuple(await self._subnets()),
            settings=await asyncio.to_thread(sysctls.read, [name for name, _ in ways]),
            uplinks=ways,
            serving=frozenset(name for name in names if self.is_serving(name)),
        )


async def _forwarding_tables(ours: set[str]) -> dict[tuple[str, str], Rules]:
    chains = [item["chain"] for item in await read("list", "chains") if "chain" in item]
    found = {
        (c["family"], c["table"])
        for c in chains
        if c.get("hook") == "forward" and c.get("policy") == "drop" and c["table"] not in ours
    }
    return {(family, table): await read("list", "table", family, table) for family, table in found}


def _no_bridge_firewall(network: Network) -> WrongState:
    why = f"security.acls of NICs on {network.name} needs br_netfilter; load it: modprobe br_netfilter"
    return WrongState("NO_BR_NETFILTER", why, about=network.name)


def _same(before: dict[str, str], wanted: dict[str, str]) -> dict[str, str]:
    return {device: said for device, said in wanted.items() if before.get(device) == said}


def _noted(mark: Path) -> dict[str, str]:
    """Return the tunnels that were made, by device, with what they are; nothing said of one is in doubt."""
    try:
        found: dict[str, str] = json.loads(mark.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _note(mark: Path, tunnels: dict[str, str]) -> None:
    replace_file(mark, json.dumps(tunnels))


def _lines(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text().split()) if path.exists() else ()


def _write_lines(path: Path, lines: tuple[str, ...]) -> None:
    if lines != _lines(path):
        path.write_text("".join(f"{line}\n" for line in lines))
