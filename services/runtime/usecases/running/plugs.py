"""Give running instances the devices they should have, and no others. Repeatable."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from core.configkeys.nic import IPVLAN
from core.errors import PodiumError, WrongState
from core.logs import get_logger
from services.runtime.domain.devices.plan import DevicePlan, Facts
from services.runtime.domain.devices.registry import plan_devices
from services.runtime.ports import Guest, GuestDevices, NicPlan
from services.runtime.usecases.peers import Networks

log = get_logger(__name__)
Devices = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Plugs:
    """The devices of one instance: its kernel's part, and its addresses of the host."""

    guests: GuestDevices
    networks: Networks

    async def plans(self, devices: Devices, facts: Facts) -> tuple[DevicePlan, ...]:
        """Raises: WrongState when one of them cannot be started."""
        return await asyncio.to_thread(plan_devices, devices, facts)

    async def ensure(
        self, guest: Guest, devices: Devices, facts: Facts, *, optional: Container[str] = ()
    ) -> None:
        """*optional*: leave as they are those of these that cannot be started now. Raises: WrongState."""
        async with self.guests.held(guest.id):
            had = await asyncio.to_thread(self.guests.plugged, guest.id)
            kept = {plan.device: plan for plan in had}
            plans = await asyncio.to_thread(plan_devices, devices, facts, kept=kept, optional=optional)
            await self._make(guest, had, plans, optional)

    async def make(self, guest: Guest, plans: tuple[DevicePlan, ...]) -> None:
        """Do what is planned for an instance that has begun."""
        async with self.guests.held(guest.id):
            await self._make(guest, await asyncio.to_thread(self.guests.plugged, guest.id), plans)

    async def clear(self, id: str) -> None:
        """Take back what the devices of an instance that ended have on the host."""
        try:
            await self._translate(id, await asyncio.to_thread(self.guests.plugged, id), ())
        except PodiumError as exc:  # it is away, and looks itself when it is back
            log.warning("forwards_not_removed", id=id, error=exc.message)
        await self.guests.clear(id)

    async def _make(
        self,
        guest: Guest,
        had: list[DevicePlan],
        plans: tuple[DevicePlan, ...],
        optional: Container[str] = (),
    ) -> None:
        await self._translate(guest.id, had, plans)
        try:
            await self.guests.ensure(guest, plans, optional=optional)
        except PodiumError:
            left = await asyncio.to_thread(self.guests.plugged, guest.id)
            with contextlib.suppress(PodiumError):
                await self._translate(guest.id, plans, left)
            raise

    async def _translate(self, id: str, had: Iterable[DevicePlan], wanted: Iterable[DevicePlan]) -> None:
        """Have what arrives at addresses of the host translated as *wanted*, where that was or is so."""
        translations = [plan.translation for plan in wanted if plan.translation]
        if translations or any(plan.translation for plan in had):
            await self.networks.forward(id, translations)


def refuse_cold(nics: tuple[NicPlan, ...], has: set[str]) -> None:
    """Raises: WrongState for a NIC that only a start can make; *has*: devices that are plugged."""
    for nic in nics:
        if nic.nictype == IPVLAN and nic.device not in has:
            why = f'Failed to add device "{nic.device}": Device cannot be added when instance is running'
            raise WrongState("NO_HOT_PLUG", why, about=nic.device)
