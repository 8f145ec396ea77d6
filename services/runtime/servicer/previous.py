"""The gRPC face of what instances were: convert, call, convert."""

from __future__ import annotations

from typing import Any

from core.errors import NotFound
from core.records import Previous
from core.state import keys
from core.state.repository import entry_of
from protos.podium.runtime.v1 import previous_pb2 as pb
from protos.podium.runtime.v1 import previous_pb2_grpc as rpc
from services.runtime.servicer import convert
from services.runtime.usecases.host import Host


class PreviousServicer(rpc.PreviousServiceServicer):
    def __init__(self, host: Host) -> None:
        self._host = host

    async def GetPrevious(self, request: pb.GetPreviousRequest, context: Any) -> pb.GetPreviousResponse:
        store = self._host.store
        instance = store.instance(request.project, request.name).record
        found = await store.get(keys.previous(instance.id))
        if found is None:
            raise NotFound("NEVER_CHANGED", "The instance was not changed since it was made")
        entry = entry_of(Previous, found)
        was, observed = entry.record.instance, store.observed_of(instance).record
        shown = convert.instance(was, observed, self._host.expanded(instance), entry.revision)
        message = pb.GetPreviousResponse(instance=shown, changed_by=entry.record.changed_by)
        message.changed_at.FromNanoseconds(int(entry.record.changed_at * 1e9))
        return message
