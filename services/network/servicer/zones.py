"""The ZoneService: convert, call, convert."""

from __future__ import annotations

from typing import Any

from core.netrecords import NetworkZone, ZoneEntry, ZoneRecord
from core.state.repository import Entry
from protos.podium.network.v1 import zone_pb2 as pb
from protos.podium.network.v1 import zone_pb2_grpc as rpc
from services.network.usecases.zones import Zones


class ZoneServicer(rpc.ZoneServiceServicer):
    def __init__(self, zones: Zones) -> None:
        self._zones = zones

    async def CreateZone(self, request: pb.CreateZoneRequest, context: Any) -> pb.CreateZoneResponse:
        return pb.CreateZoneResponse(zone=self._shown(await self._zones.create(_zone(request.zone))))

    async def GetZone(self, request: pb.GetZoneRequest, context: Any) -> pb.GetZoneResponse:
        return pb.GetZoneResponse(zone=self._shown(self._zones.get(request.project, request.name)))

    async def ListZones(self, request: pb.ListZonesRequest, context: Any) -> pb.ListZonesResponse:
        return pb.ListZonesResponse(zones=[self._shown(e) for e in self._zones.entries(request.project)])

    async def UpdateZone(self, request: pb.UpdateZoneRequest, context: Any) -> pb.UpdateZoneResponse:
        wanted = _zone(request.zone)
        entry = await self._zones.update(
            wanted.project, wanted.name, wanted, expected_revision=request.expected_revision
        )
        return pb.UpdateZoneResponse(zone=self._shown(entry))

    async def DeleteZone(self, request: pb.DeleteZoneRequest, context: Any) -> pb.DeleteZoneResponse:
        await self._zones.delete(request.project, request.name)
        return pb.DeleteZoneResponse()

    async def CreateZoneRecord(
        self, request: pb.CreateZoneRecordRequest, context: Any
    ) -> pb.CreateZoneRecordResponse:
        entry = await self._zones.create_record(_record(request.record))
        return pb.CreateZoneRecordResponse(record=_shown_record(entry))

    async def GetZoneRecord(self, request: pb.GetZoneRecordRequest, context: Any) -> pb.GetZoneRecordResponse:
        entry = self._zones.record(request.project, request.zone, request.name)
        return pb.GetZoneRecordResponse(record=_shown_record(entry))

    async def ListZoneRecords(
        self, request: pb.ListZoneRecordsRequest, context: Any
    ) -> pb.ListZoneRecordsResponse:
        found = self._zones.records(request.project, request.zone)
        return pb.ListZoneRecordsResponse(records=[_shown_record(entry) for entry in found])

    async def UpdateZoneRecord(
        self, request: pb.UpdateZoneRecordRequest, context: Any
    ) -> pb.UpdateZoneRecordResponse:
        entry = await self._zones.update_record(
            _record(request.record), expected_revision=request.expected_revision
        )
        return pb.UpdateZoneRecordResponse(record=_shown_record(entry))

    async def DeleteZoneRecord(
        self, request: pb.DeleteZoneRecordRequest, context: Any
    ) -> pb.DeleteZoneRecordResponse:
        await self._zones.delete_record(request.project, request.zone, request.name)
        return pb.DeleteZoneRecordResponse()

    def _shown(self, entry: Entry[NetworkZone]) -> pb.Zone:
        r = entry.record
        return pb.Zone(
            project=r.project,
            name=r.name,
            description=r.description,
            config=r.config,
            used_by=self._zones.users(r),
            revision=entry.revision,
        )


def _shown_record(entry: Entry[ZoneRecord]) -> pb.ZoneRecord:
    r = entry.record
    return pb.ZoneRecord(
        project=r.project,
        zone=r.zone,
        name=r.name,
        description=r.description,
        config=r.config,
        entries=[pb.ZoneEntry(type=e.type, ttl=e.ttl, value=e.value) for e in r.entries],
        revision=entry.revision,
    )


def _zone(zone: pb.Zone) -> NetworkZone:
    return NetworkZone(zone.project, zone.name, zone.description, dict(zone.config))


def _record(record: pb.ZoneRecord) -> ZoneRecord:
    entries = tuple(ZoneEntry(e.type, e.ttl, e.value) for e in record.entries)
    config = dict(record.config)
    return ZoneRecord(record.project, record.zone, record.name, record.description, config, entries)
