"""The files of images: exported, in pieces too; secrets for strangers; images sent to other servers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing
from typing import Any

from aiohttp import web

from core.errors import NotFound, PodiumError
from gateway import pieces
from gateway.backend import Backend
from gateway.lxd import envelope, streams
from gateway.lxd import request as req
from protos.podium.image.v1 import image_pb2
from protos.podium.image.v1 import share_pb2 as pb

_NAMES = {image_pb2.IMAGE_PART_METADATA: "metadata", image_pb2.IMAGE_PART_ROOTFS: "rootfs"}


def home(request: web.Request) -> str:
    """Return the project whose images those of the request's project are. Raises: NotFound.

    To who is a guest in it a project that is not there is one without public images.
    """
    project = req.project(request)
    try:
        return req.backend(request).effective_project(project, "images")
    except NotFound:
        if not request["caller"].is_guest_of(project):
            raise
        return project


def reader(request: web.Request) -> pb.Reader:
    """Return what the caller may have: everything, or what is public or its secret opens."""
    is_guest = request["caller"].is_guest_of(req.project(request))
    return pb.Reader(is_guest=is_guest, secret=request.query.get("secret", "")[:256] if is_guest else "")


async def export_image(request: web.Request) -> web.StreamResponse:
    who = reader(request)
    found = await req.backend(request).shares.GetFiles(
        pb.GetFilesRequest(project=home(request), fingerprint=req.name(request), reader=who)
    )
    answer = await send_image(request, req.backend(request), found, who)
    if (who.secret or not who.is_guest) and request.method == "GET" and "Range" not in request.headers:
        told = pb.NoteRetrievalRequest(project=found.image.project, fingerprint=found.image.fingerprint)
        with contextlib.suppress(PodiumError):
            await req.backend(request).shares.NoteRetrieval(told)
    return answer


async def send_image(
    request: web.BaseRequest, backend: Backend, found: Any, who: pb.Reader
) -> web.StreamResponse:
    """Send the files of an image as the body: the one, or a form of both parts of a split one."""
    image, files = found.image, found.files
    if len(files) == 1:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f"inline;filename={files[0].filename}",
        }
        body = [pieces.Piece(files[0].size_bytes, file=files[0])]
    else:
        boundary = f"podium-{image.fingerprint[:32]}"
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        body = _form(boundary, files)
    return await send(request, backend, image, body, who, headers=headers, etag=image.fingerprint)


def _form(boundary: str, files: Sequence[pb.File]) -> list[pieces.Piece[pb.File]]:
    body: list[pieces.Piece[pb.File]] = []
    lead = ""
    for file in files:
        head = f'{lead}--{boundary}\r\nContent-Disposition: form-data; name="{_NAMES[file.part]}"; '
        head += f'filename="{file.filename}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        body += [pieces.of_text(head.encode()), pieces.Piece(file.size_bytes, file=file)]
        lead = "\r\n"
    return [*body, pieces.of_text(f"\r\n--{boundary}--\r\n".encode())]


async def send(
    request: web.BaseRequest,
    backend: Backend,
    image: Any,
    body: Sequence[pieces.Piece[pb.File]],
    who: pb.Reader,
    *,
    headers: dict[str, str],
    etag: str,
) -> web.StreamResponse:
    """Send a body made of files of *image*, or the piece of it that was asked for."""
    answer = pieces.answer(
        request.headers,
        size=sum(piece.size for piece in body),
        etag=etag,
        modified=image.uploaded_at.ToNanoseconds() / 1e9,
    )
    told = {**headers, **answer.headers}
    cuts = list(pieces.cut(body, answer.start, answer.length)) if request.method != "HEAD" else []
    if not cuts:
        response = web.StreamResponse(status=answer.status, headers=told)
        await response.prepare(request)
        await response.write_eof()
        return response
    with ExitStack() as stack:
        if files := await _lent(backend, image, cuts, who, stack):
            return await streams.send_pieces(
                request, [_piece(cut, files) for cut in cuts], told, status=answer.status
            )
    return await streams.send(request, _chunks(backend, image, cuts, who), told, status=answer.status)


async def _lent(
    backend: Backend, image: Any, cuts: Sequence[pieces.Cut[pb.File]], who: pb.Reader, stack: ExitStack
) -> dict[int, int]:
    """Return descriptors of the files by their parts, closed with *stack*; none where no line is there."""
    line = backend.image_lender.line()
    if not line:
        return {}
    parts = [cut.piece.file.part for cut in cuts if cut.piece.file]
    tickets = [stack.enter_context(backend.image_lender.ticket()) for _ in parts]
    asked = pb.ExportDescriptorsRequest(
        project=image.project,
        fingerprint=image.fingerprint,
        reader=who,
        line=line,
        parts=parts,
        tickets=[ticket.id for ticket in tickets],
    )
    await backend.shares.ExportDescriptors(asked)
    return {part: await ticket.pipe for part, ticket in zip(parts, tickets, strict=True)}


def _piece(cut: pieces.Cut[pb.File], files: dict[int, int]) -> bytes | streams.File:
    if cut.piece.file is None:
        return cut.piece.text[cut.offset : cut.offset + cut.length]
    return streams.File(files[cut.piece.file.part], cut.length, cut.offset)


async def _chunks(
    backend: Backend, image: Any, cuts: Sequence[pieces.Cut[pb.File]], who: pb.Reader
) -> AsyncGenerator[bytes, None]:
    for cut in cuts:
        if cut.piece.file is None:
            yield cut.piece.text[cut.offset : cut.offset + cut.length]
            continue
        wanted = pb.ExportFileRequest(
            project=image.project,
            fingerprint=image.fingerprint,
            reader=who,
            part=cut.piece.file.part,
            offset=cut.offset,
            length=cut.length,
        )
        left = cut.length
        async with aclosing(backend.shares.ExportFile(wanted)) as messages:
            async for message in messages:
                left -= len(message.chunk)
                yield message.chunk
        if left:
            raise ConnectionResetError("A file became shorter; only a broken connection can tell")


async def post_secret(request: web.Request) -> web.Response:
    backend = req.backend(request)
    reply = await backend.shares.CreateImageSecret(
        pb.CreateImageSecretRequest(
            project=home(request), fingerprint=req.name(request), asked_in=req.project(request)
        )
    )
    return envelope.accepted(backend.accepted(reply.operation))


async def push_image(request: web.Request) -> web.Response:
    """Answer a POST to an image's export: send it to the server that gave out the secret in the body."""
    data, backend = await req.body(request), req.backend(request)
    reply = await backend.shares.PushImage(
        pb.PushImageRequest(
            project=home(request),
            fingerprint=req.name(request),
            target=req.text(data, "target"),
            certificate=req.text(data, "certificate"),
            secret=req.text(data, "secret"),
            target_project=req.text(data, "project"),
            profiles=req.texts(data, "profiles"),
            asked_in=req.project(request),
        )
    )
    return envelope.accepted(backend.accepted(reply.operation))
