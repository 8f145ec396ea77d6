"""Records to messages and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.records import Certificate, Profile, Project
from core.state.repository import Entry
from protos.podium.cluster.v1 import cluster_pb2 as pb
from services.cluster.usecases.members import Seen


def devices_from(message: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return {name: dict(device.options) for name, device in message.items()}


def profile(entry: Entry[Profile], used_by: Iterable[str]) -> pb.Profile:
    r = entry.record
    message = pb.Profile(
        project=r.project,
        name=r.name,
        description=r.description,
        config=r.config,
        used_by=used_by,
        revision=entry.revision,
    )
    for name, options in r.devices.items():
        message.devices[name].options.update(options)
    return message


def profile_from(message: pb.Profile) -> Profile:
    return Profile(
        message.project,
        message.name,
        message.description,
        dict(message.config),
        devices_from(message.devices),
    )


def project(entry: Entry[Project], used_by: Iterable[str]) -> pb.Project:
    r = entry.record
    return pb.Project(
        name=r.name, description=r.description, config=r.config, used_by=used_by, revision=entry.revision
    )


def certificate(entry: Entry[Certificate]) -> pb.Certificate:
    r = entry.record
    return pb.Certificate(
        fingerprint=r.fingerprint,
        name=r.name,
        type=r.type,
        restricted=r.restricted,
        projects=r.projects,
        certificate=r.certificate,
        revision=entry.revision,
    )


def member(seen: Seen) -> pb.Member:
    status, message = "Online", "Fully operational"
    if seen.missing:
        status = "Degraded" if seen.services else "Offline"
        message = f"No sign of life from {', '.join(seen.missing)}"
    return pb.Member(
        name=seen.member.name,
        address=seen.member.address,
        status=status,
        architecture=seen.member.architecture,
        message=message,
        services=seen.services,
    )
