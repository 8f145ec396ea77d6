"""What the root of an instance lies on, as clients name it: an image of this server, or nothing."""

from __future__ import annotations

from typing import Any

from core.errors import Invalid, Unsupported
from gateway.lxd import request as req
from protos.podium.runtime.v1 import instance_pb2 as pb


def source_of(source: dict[str, Any]) -> pb.InstanceSource:
    """Raises: Invalid, Unsupported."""
    kind = req.text(source, "type")
    if kind == "none":
        return pb.InstanceSource(empty=True)
    if kind != "image":
        raise Invalid("BAD_SOURCE", f"Unknown source type {kind[:40]}", about="source.type")
    if req.text(source, "server"):
        raise Unsupported("NO_REMOTE_IMAGES", "The image must be brought here first; launch from its remote")
    if value := req.text(source, "fingerprint"):
        return pb.InstanceSource(image_fingerprint=value)
    if value := req.text(source, "alias"):
        return pb.InstanceSource(image_alias=value)
    if properties := req.text_map(source, "properties"):
        return pb.InstanceSource(image_properties=pb.PropertyMatch(properties=properties))
    raise Invalid("NO_IMAGE", "Must specify one of alias, fingerprint or properties for init from image")
