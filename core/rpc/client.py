"""A channel to another service: identity and request id go along, errors come back as ours.

It looks like a grpc.aio.Channel to the generated stubs, so `ImageServiceStub(channel(...))` works.
Unary calls get a deadline when the caller names none; streams live as long as they are read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import Any, cast

import grpc

from core.errors import Unavailable
from core.logs import request_id
from core.rpc import once
from core.rpc.identity import METADATA_KEY, REQUEST_ID_KEY, current_identity
from core.rpc.status import from_rpc_error
from core.rpc.tls import channel_credentials
from core.settings import Settings

_DEADLINE_S = 30.0
_OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]
# A host that lost its power says nothing; calls to it end soon all the same.
_FAR = [("grpc.keepalive_time_ms", 5_000), ("grpc.keepalive_timeout_ms", 3_000)]


def channel(settings: Settings, service: str) -> grpc.aio.Channel:
    """Return a channel to *service* on this member. Connects when first used, again when lost."""
    options = [*_OPTIONS, ("grpc.default_authority", "podium")]
    inner = grpc.aio.insecure_channel(f"unix:{settings.service_socket(service)}", options)
    return cast(grpc.aio.Channel, _Channel(inner, f"{service} service"))


def member_channel(settings: Settings, service: str, *, member: str, address: str) -> grpc.aio.Channel:
    """Return a channel to *service* of another *member*, over mTLS with this member's certificate.

    The other side must prove to be *member*, whatever its *address* (see core.rpc.members).

    Raises: Unavailable when this member has no certificate that it can read.
    """
    try:
        credentials = channel_credentials(settings.tls_dir)
    except OSError as exc:
        raise Unavailable("NO_CERTIFICATE", f"This member's certificate is not readable: {exc}") from exc
    options = [*_OPTIONS, *_FAR, ("grpc.ssl_target_name_override", member)]
    inner = grpc.aio.secure_channel(address, credentials, options)
    return cast(grpc.aio.Channel, _Channel(inner, f"{service} service of member {member!r}"))


def _metadata() -> list[tuple[str, str]]:
    found = [(METADATA_KEY, current_identity().encode()), (REQUEST_ID_KEY, request_id.get())]
    if ticket := once.sent_ticket():
        found.append((once.METADATA_KEY, ticket.encode()))
    return found


class _Channel:
    def __init__(self, inner: grpc.aio.Channel, service: str) -> None:
        self._inner = inner
        self._service = service

    async def close(self, grace_s: float | None = None) -> None:
        """Calls that are under way have *grace_s* to end."""
        await self._inner.close(grace_s)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last: grpc.ChannelConnectivity) -> None:
        await self._inner.wait_for_state_change(last)

    def unary_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        return self._one(self._inner.unary_unary(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        return self._sent(self._inner.stream_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        return self._many(self._inner.unary_stream(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        return self._many(self._inner.stream_stream(*args, **kwargs))

    def _one(self, method: Any) -> Callable[..., Any]:
        async def call(request: Any, *, timeout: float | None = _DEADLINE_S) -> Any:
            try:
                return await method(request, timeout=timeout, metadata=_metadata())
            except grpc.aio.AioRpcError as exc:
                raise from_rpc_error(exc, self._service) from exc

        return call

    def _sent(self, method: Any) -> Callable[..., Any]:
        async def call(source: AsyncIterable[Any], *, timeout: float | None = None) -> Any:
            rpc = method(timeout=timeout, metadata=_metadata())
            sending = asyncio.create_task(_send(rpc, source))
            try:
                return await rpc
            except grpc.aio.AioRpcError as exc:
                raise from_rpc_error(exc, self._service) from exc
            except asyncio.CancelledError:
                _raise_failure(sending)
                raise
            finally:
                sending.cancel()
                await asyncio.wait([sending])

        return call

    def _many(self, method: Any) -> Callable[..., AsyncGenerator[Any, None]]:
        async def call(request: Any, *, timeout: float | None = None) -> AsyncGenerator[Any, None]:
            rpc = method(request, timeout=timeout, metadata=_metadata())
            try:
                async for item in rpc:
                    yield item
            except grpc.aio.AioRpcError as exc:
                raise from_rpc_error(exc, self._service) from exc
            finally:
                rpc.cancel()

        return call


async def _send(rpc: Any, source: AsyncIterable[Any]) -> None:
    """Stream *source* into a call; a source that fails cancels the call.

    Not left to gRPC's own reader of iterators. That one waits on for a next message when the call has ended;
    until it comes nobody else can read what the source reads, such as the rest of a request's body. And where
    the other side refuses while a message is on its way, it puts an internal error in the place of the
    refusal; hence the private way of sending of this (pinned) version.
    """
    try:
        async for message in source:
            await rpc.wait_for_connection()
            await rpc._cython_call.send_serialized_message(message.SerializeToString())
        await rpc.done_writing()
    except (grpc.aio.InternalError, grpc.aio.AioRpcError):
        return  # the call has ended, and tells why itself
    except Exception:
        rpc.cancel()
        raise
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()


def _raise_failure(sending: asyncio.Task[None]) -> None:
    """Raise what the source raised, unless somebody really cancelled this task."""
    task = asyncio.current_task()
    if sending.done() and not sending.cancelled() and not (task and task.cancelling()):
        sending.result()
