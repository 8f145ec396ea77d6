"""Images and aliases as messages."""

from __future__ import annotations

from core.records import Alias, Image
from core.state.repository import Entry
from protos.podium.image.v1 import download_pb2
from protos.podium.image.v1 import image_pb2 as pb
from services.image.ports import SQUASHFS
from services.image.store import ImageStore

PARTS = {
    pb.IMAGE_PART_UNIFIED: "unified",
    pb.IMAGE_PART_METADATA: "metadata",
    pb.IMAGE_PART_ROOTFS: "rootfs",
}
PART_NUMBERS = {name: number for number, name in PARTS.items()}
# Of a base that came without a part of an image there is the squashfs alone.
COPY_PARTS = {**PARTS, pb.IMAGE_PART_UNSPECIFIED: SQUASHFS}
COPY_PART_NUMBERS = {name: number for number, name in COPY_PARTS.items()}


def profiles_of(request: pb.UpdateImageRequest | download_pb2.DownloadImageRequest) -> tuple[str, ...]:
    return () if request.without_profiles else tuple(request.profiles) or ("default",)


def image_message(store: ImageStore, entry: Entry[Image]) -> pb.Image:
    r = entry.record
    message = pb.Image(
        project=r.project,
        fingerprint=r.fingerprint,
        properties=r.properties,
        public=r.public,
        auto_update=r.auto_update,
        cached=r.cached,
        architecture=r.architecture,
        filename=r.filename,
        size_bytes=r.size_bytes,
        split=r.split,
        profiles=r.profiles,
        aliases=[alias_message(a) for a in store.aliases_of(r.project, r.fingerprint)],
        revision=entry.revision,
        origin=r.origin,
    )
    if isinstance(application := r.metadata.get("oci"), dict):
        message.application.CopyFrom(pb.Application(**application))
    times = {"created_at": r.created_at, "expires_at": r.expires_at, "uploaded_at": r.uploaded_at}
    times["last_used_at"] = store.last_used_at(r)
    for name, value in times.items():
        if value:
            getattr(message, name).FromNanoseconds(int(value * 1e9))
    return message


def alias_message(entry: Entry[Alias]) -> pb.Alias:
    r = entry.record
    return pb.Alias(
        name=r.name, description=r.description, target=r.target, project=r.project, revision=entry.revision
    )
