"""Operation records as the message every service answers with."""

from __future__ import annotations

import orjson

from core.operations.operation import Operation
from protos.podium.common.v1 import common_pb2 as pb

_CLASSES = {
    "task": pb.OPERATION_CLASS_TASK,
    "channel": pb.OPERATION_CLASS_CHANNEL,
    "token": pb.OPERATION_CLASS_TOKEN,
}
_STATES = {
    "pending": pb.OPERATION_STATE_PENDING,
    "running": pb.OPERATION_STATE_RUNNING,
    "cancelling": pb.OPERATION_STATE_CANCELLING,
    "succeeded": pb.OPERATION_STATE_SUCCEEDED,
    "failed": pb.OPERATION_STATE_FAILED,
    "cancelled": pb.OPERATION_STATE_CANCELLED,
}
_CLASS_NAMES = {value: name for name, value in _CLASSES.items()}
_STATE_NAMES = {value: name for name, value in _STATES.items()}


def to_proto(operation: Operation, *, revision: int = 0) -> pb.Operation:
    message = pb.Operation(
        id=operation.id,
        service=operation.service,
        member=operation.member,
        kind=operation.kind,
        description=operation.description,
        project=operation.project,
        operation_class=_CLASSES[operation.op_class],
        state=_STATES[operation.state],
        metadata_json=orjson.dumps(operation.metadata).decode(),
        may_cancel=operation.may_cancel,
        requestor=pb.Requestor(**operation.requestor),
        revision=revision,
    )
    for kind, names in operation.resources.items():
        message.resources[kind].names.extend(names)
    if operation.error_reason:
        message.error.CopyFrom(_error(operation))
    message.created_at.FromNanoseconds(int(operation.created_at * 1e9))
    message.updated_at.FromNanoseconds(int(operation.updated_at * 1e9))
    return message


def _error(operation: Operation) -> pb.ErrorDetail:
    return pb.ErrorDetail(
        kind=operation.error_kind,
        reason=operation.error_reason,
        message=operation.error_message,
        subject=operation.error_about,
    )


def from_proto(message: pb.Operation) -> Operation:
    return Operation(
        id=message.id,
        service=message.service,
        member=message.member,
        kind=message.kind,
        description=message.description,
        project=message.project,
        op_class=_CLASS_NAMES[message.operation_class],
        state=_STATE_NAMES[message.state],
        resources={kind: tuple(names.names) for kind, names in message.resources.items()},
        metadata=orjson.loads(message.metadata_json or "{}"),
        may_cancel=message.may_cancel,
        error_kind=message.error.kind,
        error_reason=message.error.reason,
        error_message=message.error.message,
        error_about=message.error.subject,
        created_at=message.created_at.ToNanoseconds() / 1e9,
        updated_at=message.updated_at.ToNanoseconds() / 1e9,
        requestor={
            "username": message.requestor.username,
            "protocol": message.requestor.protocol,
            "address": message.requestor.address,
        },
    )
