"""The gRPC face of what goes to and comes from other servers: convert, call, convert."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass

from core.errors import Invalid
from core.operations.runner import Runner
from core.operations.servicer import answer
from protos.podium.runtime.v1 import transfer_pb2 as pb
from services.runtime.domain.offers import Answer, Offer
from services.runtime.servicer.headers import answer_of, header_of_offer, offer_of
from services.runtime.servicer.line import Line
from services.runtime.servicer.volumes import ref_of
from services.runtime.usecases.transfers.arrive import Spec, WantedArrival
from services.runtime.usecases.transfers.departures import Departures
from services.runtime.usecases.transfers.landings import Landings
from services.runtime.usecases.transfers.voyages import Voyage, Voyages
from services.runtime.usecases.transfers.wire import Wire
from services.runtime.usecases.volumes.imports import WantedVolume
from services.runtime.usecases.volumes.voyages import VolumeVoyages

Requests = AsyncIterator[pb.RunTransferRequest]
Responses = AsyncGenerator[pb.RunTransferResponse, None]


@dataclass(frozen=True)
class _Going:
    """offer: what the other side is told; send: what it answered for, by rsync."""

    voyage: AbstractAsyncContextManager[Voyage]
    offer: Offer
    archive: Callable[[], AsyncGenerator[bytes, None]]
    send: Callable[[Answer, Wire], Awaitable[None]]


@dataclass(frozen=True)
class _Coming:
    """receive: take it by rsync, or say that the archive is to come; land: make something of that."""

    voyage: AbstractAsyncContextManager[Voyage]
    receive: Callable[[Voyage, Offer, Wire], Awaitable[bool]]
    land: Callable[[Voyage, str], Awaitable[None]]


class Carriers:
    def __init__(
        self,
        instances: Voyages,
        volumes: VolumeVoyages,
        departures: Departures,
        landings: Landings,
        runner: Runner,
    ) -> None:
        self._instances = instances
        self._departures = departures
        self._landings = landings
        self._volumes = volumes
        self._runner = runner

    async def run(self, requests: Requests) -> Responses:
        """Carry what the first request names. Raises: Invalid, and what its use case does."""
        first = await anext(aiter(requests), None)
        running = await self._begun(first or pb.RunTransferRequest(), requests)
        async with aclosing(running):
            async for response in running:
                yield response

    async def _begun(self, first: pb.RunTransferRequest, requests: Requests) -> Responses:
        if first.HasField("going"):
            return self._send(await self._instance_going(first.going), requests)
        if first.HasField("coming"):
            return self._receive(self._instance_coming(first.coming), requests)
        if first.HasField("volume_going"):
            return self._send(self._volume_going(first.volume_going), requests)
        if first.HasField("volume_coming"):
            return self._receive(self._volume_coming(first.volume_coming), requests)
        raise Invalid("NO_HEADER", "A transfer begins with what is to be transferred")

    async def _instance_going(self, wanted: pb.TransferOut) -> _Going:
        which, voyages = wanted.instance, self._instances
        source = await voyages.source(which.project, which.name, which.snapshot, live=wanted.live)
        offer = self._departures.offer(source, instance_only=wanted.instance_only)
        return _Going(
            voyages.out(source, passive=wanted.passive),
            offer,
            lambda: voyages.archive(source, instance_only=wanted.instance_only),
            lambda answer, wire: self._departures.send(source, offer, answer, wire),
        )

    def _volume_going(self, wanted: pb.VolumeOut) -> _Going:
        voyages, source = self._volumes, self._volumes.source(ref_of(wanted.volume))
        offer = voyages.offer(source, only=wanted.volume_only)
        return _Going(
            voyages.out(source, passive=wanted.passive),
            offer,
            lambda: voyages.archive(source, only=wanted.volume_only),
            lambda answer, wire: voyages.send(source, offer, answer, wire),
        )

    def _instance_coming(self, wanted: pb.TransferIn) -> _Coming:
        i, voyages = wanted.instance, self._instances

        def arrival(ticket: str) -> WantedArrival:
            only, refresh = wanted.instance_only, wanted.refresh
            return WantedArrival(
                i.project, ticket, i.name, spec=_spec(wanted), instance_only=only, refresh=refresh
            )

        return _Coming(
            voyages.into(i.project, i.name, passive=wanted.passive),
            lambda voyage, offer, wire: self._landings.receive(voyage, arrival(""), offer, wire),
            lambda voyage, ticket: voyages.land(voyage, arrival(ticket)),
        )

    def _volume_coming(self, wanted: pb.VolumeIn) -> _Coming:
        v, voyages = wanted.volume, self._volumes
        ref = ref_of(v.volume)

        def arrival(ticket: str) -> WantedVolume:
            config, only, refresh = dict(v.config), v.volume_only, v.refresh
            return WantedVolume(ref, ticket, config, v.description, only=only, refresh=refresh)

        return _Coming(
            voyages.into(ref, passive=wanted.passive),
            lambda voyage, offer, wire: voyages.receive(voyage, arrival(""), offer, wire),
            lambda voyage, ticket: voyages.land(voyage, arrival(ticket)),
        )

    async def _send(self, going: _Going, requests: Requests) -> Responses:
        async with going.voyage as voyage:
            yield pb.RunTransferResponse(operation=answer(self._runner, voyage.operation))
            yield pb.RunTransferResponse(header=header_of_offer(going.offer))
            if raw := await _header(requests, voyage):
                line = Line(requests)
                async with aclosing(line.worked(self._sent(going, answer_of(raw), line))) as sent:
                    async for response in sent:
                        yield response
                yield pb.RunTransferResponse(done=True)
                await _ended(requests, voyage)
        yield pb.RunTransferResponse(end=pb.TransferEnd(error=voyage.why_not))

    async def _sent(self, going: _Going, wanted: Answer, line: Line) -> None:
        if not wanted.archive:
            await going.send(wanted, line)
            return
        async with aclosing(going.archive()) as archive:
            async for chunk in archive:
                await line.write(chunk)
        await line.mark()

    async def _receive(self, coming: _Coming, requests: Requests) -> Responses:
        async with coming.voyage as voyage:
            yield pb.RunTransferResponse(operation=answer(self._runner, voyage.operation))
            if raw := await _header(requests, voyage):
                line = Line(requests)
                receiving = coming.receive(voyage, offer_of(raw), line)
                async with aclosing(line.worked(receiving)) as received:
                    async for response in received:
                        yield response
                if line.awaits_archive:
                    await _landed(requests, voyage, coming)
        yield pb.RunTransferResponse(end=pb.TransferEnd(error=voyage.why_not))


async def _header(requests: Requests, voyage: Voyage) -> bytes:
    """Return what the other side offers or answers; b"" where it came to an end."""
    request = await anext(aiter(requests), None)
    if request is not None and request.HasField("header"):
        return request.header
    if request is not None:
        voyage.why_not = request.end.error
    return b""


async def _ended(requests: Requests, voyage: Voyage) -> None:
    """Let the voyage end as the other side says it did, whatever else that says before."""
    async for request in requests:
        if request.HasField("end"):
            voyage.why_not = request.end.error
            return


async def _landed(requests: Requests, voyage: Voyage, coming: _Coming) -> None:
    request = await anext(aiter(requests), None)
    if request is not None and request.HasField("ticket"):
        await coming.land(voyage, request.ticket)
    elif request is not None:
        voyage.why_not = request.end.error


def _spec(wanted: pb.TransferIn) -> Spec:
    i = wanted.instance
    return Spec(
        description=i.description,
        architecture=i.architecture,
        ephemeral=i.ephemeral,
        profiles=tuple(i.profiles.names) if i.HasField("profiles") else ("default",),
        config=dict(i.config),
        devices={name: dict(device.options) for name, device in i.devices.items()},
    )
