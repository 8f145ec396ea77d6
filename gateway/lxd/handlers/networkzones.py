"""DNS zones and their records. As with ACLs, projects without networks share the default project's."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from aiohttp import web

from core.policy import restrictions
from core.rpc.identity import current_identity
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.handlers.networkacls import home, objects, own_home
from gateway.lxd.nouns import Noun
from gateway.lxd.views.networks import zone_json, zone_record_json
from protos.podium.network.v1 import zone_pb2 as pb


def _without_secrets(request: web.Request, zone: Any) -> Any:
    """A zone that is shared with a confined caller is shown without what proves its peers."""
    own = current_identity().projects
    if own is not None and zone.project not in own:
        for key in [key for key in zone.config if key.startswith("peers.")]:
            del zone.config[key]
    return zone


async def _get(request: web.Request) -> Any:
    message = pb.GetZoneRequest(project=home(request), name=req.name(request))
    return _without_secrets(request, (await req.backend(request).zones.GetZone(message)).zone)


async def _get_record(request: web.Request) -> Any:
    message = pb.GetZoneRecordRequest(
        project=home(request), zone=req.name(request), name=req.name(request, "record")
    )
    return (await req.backend(request).zones.GetZoneRecord(message)).record


def _writable(zone: Any) -> tuple[Any, ...]:
    return zone.name, zone.description, dict(zone.config)


def _writable_record(record: Any) -> tuple[Any, ...]:
    return tuple(zone_record_json(record).values())


def _url_name(item: Any) -> str:
    return quote(str(item.name), safe="@")


_ZONE = Noun("/1.0/network-zones", _get, zone_json, _writable, of_project=True, name=_url_name)
_RECORD = Noun("records", _get_record, zone_record_json, _writable_record, of_project=True, name=_url_name)
get_zone, get_record = _ZONE.one, _RECORD.one


def _records(request: web.Request) -> Noun:
    path = f"/1.0/network-zones/{quote(req.name(request), safe='')}/records"
    return Noun(path, _RECORD.get, _RECORD.show, _RECORD.writable, of_project=True, name=_url_name)


# --- zones -------------------------------------------------------------------------------------------


async def list_zones(request: web.Request) -> web.Response:
    reply = await req.backend(request).zones.ListZones(pb.ListZonesRequest(project=home(request)))
    return _ZONE.listing(request, [_without_secrets(request, zone) for zone in reply.zones])


async def post_zone(request: web.Request) -> web.Response:
    data = await req.body(request)
    zone = _zone(data, own_home(request), req.text(data, "name"))
    restrictions.check_zone(req.backend(request).project_record(req.project(request)), zone.name)
    await req.backend(request).zones.CreateZone(pb.CreateZoneRequest(zone=zone))
    return _ZONE.created(quote(zone.name, safe=""))


async def put_zone(request: web.Request) -> web.Response:
    own_home(request)
    data, zone = await _ZONE.wanted(request)
    message = pb.UpdateZoneRequest(zone=_zone(data, zone.project, zone.name), expected_revision=zone.revision)
    await req.backend(request).zones.UpdateZone(message)
    return envelope.empty()


async def delete_zone(request: web.Request) -> web.Response:
    message = pb.DeleteZoneRequest(project=own_home(request), name=req.name(request))
    await req.backend(request).zones.DeleteZone(message)
    return envelope.empty()


def _zone(data: dict[str, Any], project: str, name: str) -> pb.Zone:
    return pb.Zone(
        project=project,
        name=name,
        description=req.text(data, "description"),
        config=req.text_map(data, "config"),
    )


# --- records -----------------------------------------------------------------------------------------


async def list_records(request: web.Request) -> web.Response:
    message = pb.ListZoneRecordsRequest(project=home(request), zone=req.name(request))
    reply = await req.backend(request).zones.ListZoneRecords(message)
    return _records(request).listing(request, reply.records)


async def post_record(request: web.Request) -> web.Response:
    data = await req.body(request)
    record = _record(data, own_home(request), req.name(request), req.text(data, "name"))
    await req.backend(request).zones.CreateZoneRecord(pb.CreateZoneRecordRequest(record=record))
    return _records(request).created(_url_name(record))


async def put_record(request: web.Request) -> web.Response:
    own_home(request)
    data, record = await _RECORD.wanted(request)
    message = pb.UpdateZoneRecordRequest(
        record=_record(data, record.project, record.zone, record.name), expected_revision=record.revision
    )
    await req.backend(request).zones.UpdateZoneRecord(message)
    return envelope.empty()


async def delete_record(request: web.Request) -> web.Response:
    message = pb.DeleteZoneRecordRequest(
        project=own_home(request), zone=req.name(request), name=req.name(request, "record")
    )
    await req.backend(request).zones.DeleteZoneRecord(message)
    return envelope.empty()


def _record(data: dict[str, Any], project: str, zone: str, name: str) -> pb.ZoneRecord:
    entries = [
        pb.ZoneEntry(type=req.text(e, "type"), ttl=req.number(e, "ttl"), value=req.text(e, "value"))
        for e in objects(data, "entries")
    ]
    return pb.ZoneRecord(
        project=project,
        zone=zone,
        name=name,
        description=req.text(data, "description"),
        config=req.text_map(data, "config"),
        entries=entries,
    )
