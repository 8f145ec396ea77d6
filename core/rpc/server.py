"""A service's gRPC server: unix socket, mTLS, health, reflection, identity, errors, metrics."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from core.errors import Forbidden, PodiumError, from_exception
from core.logs import get_logger, request_id
from core.metrics import RPC_SECONDS
from core.rpc import once, wellformed
from core.rpc.confine import HomeOf, check
from core.rpc.identity import (
    METADATA_KEY,
    REQUEST_ID_KEY,
    Identity,
    current_identity,
    decode_identity,
    set_identity,
)
from core.rpc.status import to_status
from core.rpc.tls import MEMBER, peer_of, server_credentials
from core.settings import Settings
from core.tasks import nothing

Settled = Callable[[], Awaitable[None]]
log = get_logger(__name__)
OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.so_reuseport", 0),
    # Members ask whether a silent call still has another side; see core/rpc/client.py.
    ("grpc.http2.min_ping_interval_without_data_ms", 2_000),
]


async def serve(
    settings: Settings,
    service: str,
    register: Callable[[grpc.aio.Server], list[str]],
    *,
    announce: Callable[[str], Awaitable[None]] | None = None,
    home_of: HomeOf = lambda project, feature: project,
    settled: Settled = nothing,
) -> grpc.aio.Server:
    """Start to serve and return the server; *register* adds servicers and returns their full names.

    *announce* is told where it listens for other members, if it does; *home_of* (see core.projects)
    says what confined callers share with the default project. Each call begins when *settled* returns:
    once this process knows what its caller may have read already.
    """
    server = grpc.aio.server(interceptors=[_Interceptor(home_of, settled)], options=OPTIONS)
    names = register(server)
    checker = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    path = settings.service_socket(service)
    path.unlink(missing_ok=True)
    server.add_insecure_port(f"unix:{path}")
    address = _listen_to_members(server, settings, service)
    await server.start()
    _protect(str(path), settings.group)
    for name in ["", *names]:
        await checker.set(name, health_pb2.HealthCheckResponse.SERVING)
    log.info("service_started", service=service, socket=str(path), address=address)
    if announce and address:
        await announce(address)
    return server


def _listen_to_members(server: grpc.aio.Server, settings: Settings, service: str) -> str:
    """Listen with mTLS; return the address to be reached at. What prevents it is said, not fatal."""
    listen = settings.rpc_listen(service)
    if not listen:
        return ""
    try:
        server.add_secure_port(listen, server_credentials(settings.tls_dir))
    except (OSError, RuntimeError) as exc:
        log.warning("rpc_not_listening", address=listen, error=str(exc).splitlines()[0])
        return ""
    return settings.rpc_address(service)


def _protect(path: str, group: str) -> None:
    """Only root and Podium's own group may connect."""
    os.chmod(path, 0o660)
    try:
        shutil.chown(path, group=group)
    except (LookupError, PermissionError):
        log.debug("socket_group_kept", path=path, group=group)


class _Interceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc, unused-ignore]
    """Wraps every method: who calls, whether it may, what failed, how long it took."""

    def __init__(self, home_of: HomeOf, settled: Settled) -> None:
        self._home_of, self._settled = home_of, settled

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or details.method.startswith("/grpc."):
            return handler
        path = details.method

        def may(request: Any) -> None:
            check(path, request, current_identity(), self._home_of)
            wellformed.check(request)

        return _wrapped(handler, path, may, self._settled)


Check = Callable[[Any], None]


def _wrapped(handler: Any, path: str, check: Check, settled: Settled) -> Any:
    method = path.rsplit("/", 1)[-1]
    asks_many, answers_many = handler.request_streaming, handler.response_streaming
    kind = f"{'stream' if asks_many else 'unary'}_{'stream' if answers_many else 'unary'}"
    admit = _first_checked if asks_many else _checked
    inner, make = getattr(handler, kind), getattr(grpc, f"{kind}_rpc_method_handler")
    wrap = _streaming if answers_many else _unary
    wrapped = wrap(inner, method, lambda request: admit(request, check), settled)
    return make(wrapped, handler.request_deserializer, handler.response_serializer)


def _checked(request: Any, check: Check) -> Any:
    check(request)
    return request


async def _first_checked(requests: AsyncIterator[Any], check: Check) -> AsyncIterator[Any]:
    """Yield *requests*; the first says what the others are about. Raises what *check* does, when read."""
    is_first = True
    async for request in requests:
        if is_first:
            check(request)
        is_first = False
        yield request


def _enter(context: Any) -> None:
    metadata = dict(context.invocation_metadata() or ())
    request_id.set(metadata.get(REQUEST_ID_KEY, ""))
    set_identity(_caller(context, metadata.get(METADATA_KEY, "")))
    once.receive_ticket(once.decode_ticket(_believed(context, metadata.get(once.METADATA_KEY, ""))))


def _caller(context: Any, claimed: str) -> Identity:
    """Say who calls. Our own processes may pass on whom they call for; others are who they are.

    Raises: Forbidden.
    """
    where = context.peer()
    if _is_ours(context):
        return decode_identity(claimed)
    peer = peer_of(context.auth_context())
    if peer is None:
        raise Forbidden("NOT_AUTHORIZED", "not authorized")
    return Identity(peer.fingerprint, "tls", unquote(where.partition(":")[2]))


def _is_ours(context: Any) -> bool:
    """Say whether a process of Podium calls, which is believed whatever it says of its caller."""
    if context.peer().startswith("unix:"):
        return True
    peer = peer_of(context.auth_context())
    return peer is not None and peer.kind == MEMBER


def _believed(context: Any, claimed: str) -> str:
    return claimed if claimed and _is_ours(context) else ""


def _unary(
    inner: Callable[[Any, Any], Awaitable[Any]],
    method: str,
    admit: Callable[[Any], Any],
    settled: Settled,
) -> Callable[[Any, Any], Awaitable[Any]]:
    async def call(request: Any, context: Any) -> Any:
        began = time.perf_counter()
        try:
            _enter(context)
            await settled()
            return await inner(admit(request), context)
        except PodiumError as exc:
            status = to_status(exc)
        except grpc.aio.AbortError:
            raise
        except Exception as exc:
            log.exception("rpc_crashed", method=method)
            status = to_status(from_exception(exc))
        finally:
            once.end_request()
            RPC_SECONDS.labels(method).observe(time.perf_counter() - began)
        # Not of an error kept until here: that would hold this frame, which holds it, and both the request.
        await context.abort_with_status(status)
        raise AssertionError  # abort raised already

    return call


def _streaming(
    inner: Callable[[Any, Any], AsyncIterator[Any]],
    method: str,
    admit: Callable[[Any], Any],
    settled: Settled,
) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        status: Any = None
        try:
            _enter(context)
            await settled()
            async for item in inner(admit(request), context):
                yield item
        except PodiumError as exc:
            status = to_status(exc)
        except grpc.aio.AbortError:
            raise
        except Exception as exc:
            log.exception("rpc_crashed", method=method)
            status = to_status(from_exception(exc))
        if status:
            await context.abort_with_status(status)

    return call
