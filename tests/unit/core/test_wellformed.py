"""Times in requests: any number may stand there, and no service computes with what is none."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import Invalid
from core.rpc import wellformed
from protos.podium.image.v1 import image_pb2, share_pb2
from protos.podium.runtime.v1 import transfer_pb2, volume_pb2

BAD = [(-1, 0), (253402300800, 0), (2**63 - 1, 2**31 - 1), (0, -1), (0, 1_000_000_000), (-(2**63), -(2**31))]


@pytest.mark.parametrize(("seconds", "nanos"), BAD)
@pytest.mark.parametrize(
    "message",
    [
        transfer_pb2.CreateBackupRequest(),
        image_pb2.UpdateImageRequest(),
        share_pb2.AwaitImageRequest(),
    ],
    ids=lambda message: message.DESCRIPTOR.name,
)
def test_a_time_that_is_none_is_refused_by_name(message: Any, seconds: int, nanos: int) -> None:
    message.expires_at.seconds, message.expires_at.nanos = seconds, nanos
    with pytest.raises(Invalid, match="expires_at must be a time"):
        wellformed.check(message)


def test_also_further_down() -> None:
    message = image_pb2.UploadImageRequest()
    message.header.expires_at.seconds = -5
    with pytest.raises(Invalid, match="expires_at"):
        wellformed.check(message)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e308, 253402300800.0])
def test_nor_a_time_that_is_a_bare_number(value: float) -> None:
    message = volume_pb2.CreateVolumeSnapshotRequest(expires_at=value)
    with pytest.raises(Invalid, match="expires_at"):
        wellformed.check(message)


def test_what_is_a_time_or_absent_passes() -> None:
    message = transfer_pb2.CreateBackupRequest()
    wellformed.check(message)
    message.expires_at.seconds = 253402300799
    wellformed.check(message)
