"""The gRPC face of what goes to and comes from other servers: convert, call, convert."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass

from core.errors import Invalid
from core.operations.runner import Runner
from core.operations.servicer import answer
from protos.podium.runtime.v1 import transfer_pb2 as pb
from services.runtime.servicer.volumes import ref_of
from services.runtime.usecases.arrive import Spec, WantedArrival
from services.runtime.usecases.volumeimports import WantedVolume
from services.runtime.usecases.volumevoyages import VolumeVoyages
from services.runtime.usecases.voyages import Voyage, Voyages

Requests = AsyncIterator[pb.RunTransferRequest]
Responses = AsyncGenerator[pb.RunTransferResponse, None]


@dataclass(frozen=True)
class _Going:
    voyage: AbstractAsyncContextManager[Voyage]
    archive: Callable[[], AsyncGenerator[bytes, None]]


@dataclass(frozen=True)
class _Coming:
    """land: make something of what has arrived under a ticket."""

    voyage: AbstractAsyncContextManager[Voyage]
    land: Callable[[Voyage, str], Awaitable[None]]


class Carriers:
    def __init__(self, instances: Voyages, volumes: VolumeVoyages, runner: Runner) -> None:
        self._instances = instances
        self._volumes = volumes
        self._runner = runner

    async def run(self, requests: Requests) -> Responses:
        """Carry what the first request names. Raises: Invalid, and what its use case does."""
        first = await anext(aiter(requests), None)
        running = self._begun(first or pb.RunTransferRequest(), requests)
        async with aclosing(running):
            async for response in running:
                yield response

    def _begun(self, first: pb.RunTransferRequest, requests: Requests) -> Responses:
        if first.HasField("going"):
            return self._send(self._instance_going(first.going), requests)
        if first.HasField("coming"):
            return self._receive(self._instance_coming(first.coming), requests)
        if first.HasField("volume_going"):
            return self._send(self._volume_going(first.volume_going), requests)
        if first.HasField("volume_coming"):
            return self._receive(self._volume_coming(first.volume_coming), requests)
        raise Invalid("NO_HEADER", "A transfer begins with what is to be transferred")

    def _instance_going(self, wanted: pb.TransferOut) -> _Going:
        which, voyages = wanted.instance, self._instances
        source = voyages.source(which.project, which.name, which.snapshot, live=wanted.live)
        return _Going(
            voyages.out(source, passive=wanted.passive),
            lambda: voyages.archive(source, instance_only=wanted.instance_only),
        )

    def _volume_going(self, wanted: pb.VolumeOut) -> _Going:
        voyages, source = self._volumes, self._volumes.source(ref_of(wanted.volume))
        return _Going(
            voyages.out(source, passive=wanted.passive),
            lambda: voyages.archive(source, only=wanted.volume_only),
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
            lambda voyage, ticket: voyages.land(voyage, arrival(ticket)),
        )

    async def _send(self, going: _Going, requests: Requests) -> Responses:
        async with going.voyage as voyage:
            yield pb.RunTransferResponse(operation=answer(self._runner, voyage.operation))
            if _go(await anext(aiter(requests), None), voyage):
                async with aclosing(going.archive()) as archive:
                    async for chunk in archive:
                        yield pb.RunTransferResponse(chunk=chunk)
                yield pb.RunTransferResponse(chunk=b"")
                _go(await anext(aiter(requests), None), voyage)
        yield pb.RunTransferResponse(end=pb.TransferEnd(error=voyage.why_not))

    async def _receive(self, coming: _Coming, requests: Requests) -> Responses:
        async with coming.voyage as voyage:
            yield pb.RunTransferResponse(operation=answer(self._runner, voyage.operation))
            request = await anext(aiter(requests), None)
            if request is not None and request.HasField("ticket"):
                await coming.land(voyage, request.ticket)
            else:
                _go(request, voyage)
        yield pb.RunTransferResponse(end=pb.TransferEnd(error=voyage.why_not))


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


def _go(request: pb.RunTransferRequest | None, voyage: Voyage) -> bool:
    """Say whether to go on; else the voyage knows how it ended."""
    if request is not None and request.HasField("go"):
        return True
    if request is not None:
        voyage.why_not = request.end.error
    return False
