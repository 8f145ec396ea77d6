"""A channel to another service: identity and request id go along, errors come back as ours.

It looks like a grpc.aio.Channel to the generated stubs, so `ImageServiceStub(channel(...))` works.
Unary calls get a deadline when the caller names none; streams live as long as they are read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
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
_END = object()
_OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]


def channel(settings: Settings, service: str) -> grpc.aio.Channel:
    """Return a channel to *service* on this member. Connects when first used, again when lost."""
    options = [*_OPTIONS, ("grpc.default_authority", "podium")]
    inner = grpc.aio.insecure_channel(f"unix:{settings.service_socket(service)}", options)
    return cast(grpc.aio.Channel, _Channel(inner, service))


def member_channel(settings: Settings, service: str, *, member: str, address: str) -> grpc.aio.Channel:
    """Return a channel to *service* of another *member*, over mTLS with this member's certificate.

    The other side must prove to be *member*, whatever its *address* (see core.rpc.members).

    Raises: Unavailable when this member has no certificate that it can read.
    """
    try:
        credentials = channel_credentials(settings.tls_dir)
    except OSError as exc:
        raise Unavailable("NO_CERTIFICATE", f"This member's certificate is not readable: {exc}") from exc
    options = [*_OPTIONS, ("grpc.ssl_target_name_override", member)]
    inner = grpc.aio.secure_channel(address, credentials, options)
    return cast(grpc.aio.Channel, _Channel(inner, service))


def _metadata() -> list[tuple[str, str]]:
    found = [(METADATA_KEY, current_identity().encode()), (REQUEST_ID_KEY, request_id.get())]
    if ticket := once.sent_ticket():
        found.append((once.METADATA_KEY, ticket.encode()))
    return found


class _Channel:
    def __init__(self, inner: grpc.aio.Channel, service: str) -> None:
        self._inner = inner
        self._service = service

    async def close(self) -> None:
        await self._inner.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last: grpc.ChannelConnectivity) -> None:
        await self._inner.wait_for_state_change(last)

    def unary_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        return self._one(self._inner.unary_unary(*args, **kwargs), _DEADLINE_S)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        return self._one(self._inner.stream_unary(*args, **kwargs), None)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        return self._many(self._inner.unary_stream(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        return self._many(self._inner.stream_stream(*args, **kwargs))

    def _one(self, method: Any, deadline_s: float | None) -> Callable[..., Any]:
        async def call(request: Any, *, timeout: float | None = deadline_s) -> Any:
            request = _Messages(request) if isinstance(request, AsyncIterable) else request
            try:
                return await method(request, timeout=timeout, metadata=_metadata())
            except grpc.aio.AioRpcError as exc:
                raise from_rpc_error(exc, self._service) from exc
            except asyncio.CancelledError:
                if isinstance(request, _Messages):
                    request.raise_failure()
                raise
            finally:
                if isinstance(request, _Messages):
                    await request.close()

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


class _Messages:
    """What a caller streams. Where its source fails, gRPC only cancels the call; this keeps the reason.

    Closed when the call has ended: gRPC lets the source wait on for a next message, and until that came
    nobody else could read what it reads, such as the rest of a request's body.
    """

    def __init__(self, source: AsyncIterable[Any]) -> None:
        self._source = aiter(source)
        self._next: asyncio.Future[Any] | None = None
        self._failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self._read()) is not _END:
            yield message

    async def _read(self) -> Any:
        # A task of its own, since close() cannot know who waits: gRPC reads in a task that it hides.
        self._next = asyncio.ensure_future(anext(self._source, _END))
        try:
            await asyncio.wait([self._next])
        finally:
            self._next.cancel()
        if self._next.cancelled():
            return _END
        self._failure = cast(Exception | None, self._next.exception())
        return self._next.result()

    async def close(self) -> None:
        """End the source where it is."""
        if self._next and not self._next.done():
            self._next.cancel()
            await asyncio.wait([self._next])
        if isinstance(self._source, AsyncGenerator):
            await self._source.aclose()

    def raise_failure(self) -> None:
        """Raise what the source raised, unless somebody really cancelled this task."""
        task = asyncio.current_task()
        if self._failure and not (task and task.cancelling()):
            raise self._failure
