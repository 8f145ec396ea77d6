"""Errors of the table to rich gRPC status and back."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import status_pb2
from grpc_status import rpc_status

from core.errors import Kind, PodiumError, TooLate, Unavailable, error_of, internal
from protos.podium.common.v1 import common_pb2

_LONGEST, _LONGEST_WORD = 4000, 400


def to_status(error: PodiumError) -> Any:
    """Return what `context.abort_with_status` takes."""
    detail = common_pb2.ErrorDetail(
        kind=error.kind.wire,
        reason=error.reason,
        message=_short(error.message, _LONGEST),
        subject=_short(error.about, _LONGEST_WORD),
    )
    packed = any_pb2.Any()
    packed.Pack(detail)
    code = grpc.StatusCode[error.kind.grpc_status].value[0]
    return rpc_status.to_status(
        status_pb2.Status(code=code, message=_short(error.message, _LONGEST_WORD), details=[packed])
    )


def _short(text: str, size: int) -> str:
    """Return what fits: metadata beyond 8 KiB is dropped, and with it what the error was."""
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def from_rpc_error(error: grpc.aio.AioRpcError, service: str) -> PodiumError:
    """Return the error that the other side raised, or what its absence means."""
    detail = _detail(error)
    if detail is not None:
        return error_of(Kind.from_wire(detail.kind), detail.reason, detail.message, detail.subject)
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return TooLate("DEADLINE", f"The {service} took too long; try again", about=service)
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return Unavailable(
            "SERVICE_UNAVAILABLE",
            f"The {service} does not answer; try again",
            about=service,
        )
    return internal()


def _detail(error: grpc.aio.AioRpcError) -> common_pb2.ErrorDetail | None:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return _unpack(value)
    return None


def _unpack(value: bytes | str) -> common_pb2.ErrorDetail | None:
    status = status_pb2.Status.FromString(value if isinstance(value, bytes) else value.encode())
    detail = common_pb2.ErrorDetail()
    return detail if any(packed.Unpack(detail) for packed in status.details) else None
