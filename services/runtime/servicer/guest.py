"""The gRPC face of the guest API: convert, call, convert."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from core.errors import Invalid
from protos.podium.runtime.v1 import guest_pb2 as pb
from protos.podium.runtime.v1 import guest_pb2_grpc as rpc
from services.runtime.domain import idmaps
from services.runtime.domain.guest import Change, ConfigChange, DeviceChange, Hook
from services.runtime.usecases.inside.guest import Guests

_STATES = {"true": pb.GUEST_STATE_READY, "false": pb.GUEST_STATE_STARTED}


class GuestServicer(rpc.GuestServiceServicer):
    def __init__(self, guests: Guests) -> None:
        self._guests = guests

    async def GetGuest(self, request: pb.GetGuestRequest, context: Any) -> pb.GetGuestResponse:
        guest = self._guests.get(request.instance_id)
        message = pb.GetGuestResponse(
            project=guest.instance.project,
            name=guest.instance.name,
            root_uid=idmaps.of(guest.instance).root[0],
            allowed=guest.allowed,
            may_export_images=guest.may_export_images,
            state=_STATES.get(guest.state, pb.GUEST_STATE_UNSPECIFIED),
            cloud_init_id=guest.cloud_init_id,
            config=guest.config,
            image_project=guest.image_project,
        )
        for name, options in guest.devices.items():
            message.devices[name].options.update(options)
        return message

    async def SetGuestState(self, request: pb.SetGuestStateRequest, context: Any) -> pb.SetGuestStateResponse:
        if request.state == pb.GUEST_STATE_UNSPECIFIED:
            raise Invalid("NO_STATE", "A state is missing")
        await self._guests.say(request.instance_id, is_ready=request.state == pb.GUEST_STATE_READY)
        return pb.SetGuestStateResponse()

    async def WatchGuest(
        self, request: pb.WatchGuestRequest, context: Any
    ) -> AsyncIterator[pb.WatchGuestResponse]:
        with self._guests.listening(request.instance_id) as listener:
            yield pb.WatchGuestResponse()
            async for change in listener:
                yield _shown(change)


def _shown(change: Change) -> pb.WatchGuestResponse:
    message = pb.WatchGuestResponse()
    message.at.GetCurrentTime()
    match change:
        case ConfigChange():
            told = pb.ConfigChange(key=change.key, old_value=change.old_value, value=change.value)
            message.config.CopyFrom(told)
        case DeviceChange():
            options = dict(change.options)
            message.device.CopyFrom(pb.DeviceChange(action=change.action, name=change.name, options=options))
        case Hook():
            message.hook.CopyFrom(pb.HookCall(action=change.action))
    return message
