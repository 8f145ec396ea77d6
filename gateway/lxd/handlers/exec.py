"""Exec, console and logs, and the websockets that carry their channels."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import signal
from collections.abc import AsyncIterator, Iterable
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from core.errors import Invalid, NotFound, PodiumError
from core.operations.operation import Operation
from gateway import sockets
from gateway.lent import Pipes
from gateway.lxd import envelope, feed, streams
from gateway.lxd import request as req
from gateway.lxd.handlers.migration import VOYAGES
from protos.podium.runtime.v1 import exec_pb2 as pb

_OUTPUTS = ("1", "2")
# pylxd sends all of its input as one frame.
_MAX_FRAME = 64 << 20
_CHUNK = 1 << 20


async def post_exec(request: web.Request) -> web.Response:
    data = await req.body(request)
    command = req.texts(data, "command")
    if not command or any("\0" in word for word in command):
        raise Invalid("NO_COMMAND", "command must be a non-empty list of strings")
    backend = req.backend(request)
    lender = await backend.lender_for(req.project(request), req.name(request))
    reply = await backend.exec.StartExec(
        pb.StartExecRequest(
            project=req.project(request),
            name=req.name(request),
            command=command,
            environment=req.text_map(data, "environment"),
            interactive=req.flag(data, "interactive"),
            width=max(0, req.number(data, "width")),
            height=max(0, req.number(data, "height")),
            user=req.unsigned(data, "user"),
            group=req.unsigned(data, "group"),
            cwd=req.text(data, "cwd"),
            record_output=req.flag(data, "record-output"),
            wait_for_channels=req.flag(data, "wait-for-websocket"),
            line=lender.line() if _is_local(request) else "",
        )
    )
    feed.announce(request, "instance-exec", command=command)
    return envelope.accepted(backend.accepted(reply.operation))


def _is_local(request: web.Request) -> bool:
    """Whether the client is on this host's socket, so that all its channels come to this process."""
    return bool(request["caller"].identity.protocol == "unix")


async def post_console(request: web.Request) -> web.Response:
    data = await req.body(request)
    kind = req.text(data, "type") or "console"
    if kind == "vga":
        raise Invalid("NO_VGA", "VGA console is only supported by virtual machines", about="type")
    if kind != "console":
        raise Invalid("BAD_TYPE", f'Unknown console type "{kind[:40]}"', about="type")
    backend = req.backend(request)
    reply = await backend.exec.StartConsole(
        pb.StartConsoleRequest(
            project=req.project(request),
            name=req.name(request),
            width=max(0, req.number(data, "width")),
            height=max(0, req.number(data, "height")),
        )
    )
    feed.announce(request, "instance-console", type="console")
    return envelope.accepted(backend.accepted(reply.operation))


async def get_console(request: web.Request) -> web.StreamResponse:
    chunks = req.backend(request).exec.GetConsoleLog(
        pb.GetConsoleLogRequest(project=req.project(request), name=req.name(request))
    )
    answer = await streams.answer(request, chunks)
    feed.announce(request, "instance-console-retrieved")
    return answer


async def delete_console(request: web.Request) -> web.Response:
    await req.backend(request).exec.ClearConsoleLog(
        pb.ClearConsoleLogRequest(project=req.project(request), name=req.name(request))
    )
    feed.announce(request, "instance-console-reset")
    return envelope.empty()


async def list_logs(request: web.Request) -> web.Response:
    reply = await req.backend(request).exec.ListLogs(
        pb.ListLogsRequest(project=req.project(request), name=req.name(request))
    )
    return envelope.sync([f"/1.0/instances/{req.name(request)}/logs/{file}" for file in reply.files])


async def get_log(request: web.Request) -> web.StreamResponse:
    chunks = req.backend(request).exec.ReadLog(
        pb.ReadLogRequest(
            project=req.project(request), name=req.name(request), file=req.name(request, "file")
        )
    )
    answer = await streams.answer(request, chunks)
    feed.announce(request, "instance-log-retrieved", file=req.name(request, "file"))
    return answer


async def delete_log(request: web.Request) -> web.Response:
    await req.backend(request).exec.DeleteLog(
        pb.DeleteLogRequest(
            project=req.project(request), name=req.name(request), file=req.name(request, "file")
        )
    )
    feed.announce(request, "instance-log-deleted", file=req.name(request, "file"))
    return envelope.empty()


async def channel(request: web.Request) -> web.StreamResponse:
    """Carry one websocket over one ConnectChannel stream; backpressure goes through both.

    The secret is compared here, so that the upgrade need not wait for the service; that one has
    the last word (each secret connects once) and ends the stream when it refuses.
    """
    if meeting := request.app[VOYAGES].meetings.find(req.name(request)):
        return await meeting.take(request)
    operation = await req.backend(request).operation(req.name(request))
    name = _channel_of(operation, request.query.get("secret", ""))
    socket = sockets.opened(request, max_frame=_MAX_FRAME)
    if name != "control" and (pipes := req.backend(request).lender.find(operation.id)):
        pipes.take(name, request.query["secret"])
        await (_send_input if name == "0" else _send_output)(request, name, socket, pipes)
        return socket
    opened = pb.ConnectChannelRequest(
        open=pb.ChannelOpen(
            operation_id=req.name(request), secret=request.query.get("secret", ""), acknowledges=True
        )
    )
    incoming: asyncio.Queue[pb.ConnectChannelRequest | None] = asyncio.Queue(4)
    await incoming.put(opened)
    replies = req.backend(request).exec.ConnectChannel(_drain(incoming))
    if name == "control" and operation.metadata.get("interactive") is False:
        await _carry_orders(request, socket, replies, incoming)
    else:
        await _carry(request, name, socket, replies, incoming)
    return socket


async def _send_input(request: web.Request, name: str, socket: web.WebSocketResponse, pipes: Pipes) -> None:
    """Carry standard input into its pipe until the command ends."""
    await socket.prepare(request)
    reading = asyncio.create_task(_pour(socket, pipes))
    try:
        with sockets.pinged(socket):
            await pipes.ended.wait()
    finally:
        await _stopped(reading)
        pipes.input.close()
        await _closed(socket)


async def _pour(socket: web.WebSocketResponse, pipes: Pipes) -> None:
    async for message in socket:
        if message.type != WSMsgType.BINARY or not await pipes.input.write(message.data):
            break
    pipes.input.close()
    async for _ in socket:  # so that a client's pings are answered
        pass


async def _send_output(request: web.Request, name: str, socket: web.WebSocketResponse, pipes: Pipes) -> None:
    """Carry an output out of its pipe; a client that closes the channel ends it."""
    complete, reader = False, pipes.readers[name]
    try:
        await socket.prepare(request)
        listening = asyncio.create_task(_until_closed(socket))
        listening.add_done_callback(lambda _: reader.close())
        try:
            with sockets.pinged(socket), contextlib.suppress(ConnectionError):
                while data := await reader.read():
                    await socket.send_bytes(data)
                complete = not listening.done()
                await socket.send_str("")
        finally:
            await _stopped(listening)
    finally:
        pipes.done(name, complete=complete)
        await _closed(socket)


async def _until_closed(socket: web.WebSocketResponse) -> None:
    async for _ in socket:
        pass


def _channel_of(operation: Operation, secret: str) -> str:
    """Return the channel's name. Raises: NotFound, also for an operation without channels (any more)."""
    fds = operation.metadata.get("fds")
    known = fds.items() if isinstance(fds, dict) and not operation.is_final else ()
    given = secret.encode()
    found = [name for name, known_one in known if hmac.compare_digest(given, str(known_one).encode())]
    if not found:
        raise NotFound("NO_CHANNEL", "No channel of this operation has that secret", about=operation.id)
    return str(found[0])


async def _carry_orders(
    request: web.Request, socket: web.WebSocketResponse, replies: Any, incoming: Any
) -> None:
    """Carry the control channel of a command without a terminal.

    Most commands get no order at all, so the stream to the service is opened by the first one, or by
    the end of a client that goes before its command does.
    """
    await socket.prepare(request)
    ended = asyncio.ensure_future(req.backend(request).wait(req.name(request), None))
    orders = asyncio.create_task(_send_orders(socket, replies, incoming))
    try:
        with sockets.pinged(socket):
            await asyncio.wait({ended, orders}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _finish({ended, orders}, socket, replies, incoming)


async def _send_orders(socket: web.WebSocketResponse, replies: Any, incoming: Any) -> None:
    call: asyncio.Task[None] | None = None
    async for message in socket:
        if order := _control(message.data):
            call = call or asyncio.create_task(_exhaust(replies))
            await incoming.put(order)
    await incoming.put(None)
    await (call or _exhaust(replies))


async def _exhaust(replies: AsyncIterator[Any]) -> None:
    with contextlib.suppress(PodiumError):
        async for _ in replies:
            pass


async def _carry(
    request: web.Request, name: str, socket: web.WebSocketResponse, replies: Any, incoming: Any
) -> None:
    is_open = asyncio.Event()
    # Before the upgrade: the call to the service is under way while the client hears of it.
    writer = asyncio.create_task(_write(socket, replies, is_open))
    tasks = {writer}
    try:
        await socket.prepare(request)
        is_open.set()
        reader = asyncio.create_task(_read(socket, incoming, is_control=name == "control"))
        tasks.add(reader)
        # When nobody reads an output any more, the end of the call tells the command, even a silent one.
        awaited = {reader, writer} if name in _OUTPUTS else {writer}
        with sockets.pinged(socket):
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _finish(tasks, socket, replies, incoming)


async def _finish(
    tasks: Iterable[asyncio.Future[Any]], socket: web.WebSocketResponse, replies: Any, incoming: Any
) -> None:
    for task in tasks:
        await _stopped(task)
    _end(incoming)
    with contextlib.suppress(Exception):
        await replies.aclose()
    await _closed(socket)


async def _stopped(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


async def _closed(socket: web.WebSocketResponse) -> None:
    with contextlib.suppress(Exception):
        await asyncio.wait_for(socket.close(), 1)


def _end(incoming: asyncio.Queue[pb.ConnectChannelRequest | None]) -> None:
    """Let the requests end: grpc waits for the next one for ever when the service ended the call first."""
    while incoming.full():
        incoming.get_nowait()
    incoming.put_nowait(None)


async def _drain(
    incoming: asyncio.Queue[pb.ConnectChannelRequest | None],
) -> AsyncIterator[pb.ConnectChannelRequest]:
    while (message := await incoming.get()) is not None:
        yield message


async def _read(socket: web.WebSocketResponse, incoming: Any, *, is_control: bool) -> None:
    async for message in socket:
        if message.type == WSMsgType.BINARY and not is_control:
            for start in range(0, len(message.data), _CHUNK):
                await incoming.put(pb.ConnectChannelRequest(data=message.data[start : start + _CHUNK]))
        elif message.type == WSMsgType.TEXT and not is_control:
            await incoming.put(pb.ConnectChannelRequest(end=pb.EndOfData()))
        elif is_control and (order := _control(message.data)):
            await incoming.put(order)
    await incoming.put(None)


def _control(data: Any) -> pb.ConnectChannelRequest | None:
    """Return the order in a control message; unknown and broken ones are ignored, as LXD does."""
    try:
        order = orjson.loads(data)
        if order["command"] == "signal":
            return pb.ConnectChannelRequest(signal=signal.Signals(int(order["signal"])))
        if order["command"] == "window-resize":
            width, height = int(order["args"]["width"]), int(order["args"]["height"])
            return pb.ConnectChannelRequest(resize=pb.Resize(width=width, height=height))
    except (ValueError, KeyError, TypeError):
        pass
    return None


async def _write(socket: web.WebSocketResponse, replies: AsyncIterator[Any], is_open: asyncio.Event) -> None:
    """Send what the service sends. When it refuses the channel, the closing socket tells the client."""
    try:
        await anext(replies)  # it was opened
        await is_open.wait()
        async for reply in replies:
            if reply.WhichOneof("message") == "data":
                await socket.send_bytes(reply.data)
            else:
                await socket.send_str("")
                return  # and the end of our requests tells that all was passed on
    except (ConnectionError, PodiumError, StopAsyncIteration):
        return
