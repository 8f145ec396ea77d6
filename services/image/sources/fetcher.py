"""`python -m services.image.sources.fetcher`: download one image, in a process of its own.

What servers say is untrusted, so it is parsed here, within bounds of memory and time, and what loading
it takes is given back when the process ends. A JSON request comes on standard input; frames go to
standard output: one byte of kind, four of length (network order), then that many.

    j  what is known: fingerprint, files, properties, aliases …     m u r  bytes of metadata, unified, rootfs
    e  why it failed: kind, reason, message                         p      bytes that came so far, as a number
    s  how one of several servers did                               ?      it goes on when more is wanted
"""

from __future__ import annotations

import contextlib
import email.message
import email.parser
import email.policy
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, quote, urlsplit

from core.errors import Invalid, NotFound
from services.image.domain import simplestreams
from services.image.sources.framing import frame, pause, serve
from services.image.sources.servers import Servers
from services.image.sources.web import Web

_INDEX_MOST = 64 << 20
_JSON_MOST = 1 << 20
_KINDS = {"metadata": b"m", "unified": b"u", "rootfs": b"r"}
_CHUNK = 1 << 20
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def main() -> int:
    return serve(lambda asked, out: _SOURCES[asked["protocol"]](asked, out))


def _tell(out: BinaryIO, **known: Any) -> None:
    frame(out, b"j", json.dumps(known).encode())


def _web(asked: Mapping[str, Any], **headers: str) -> Web:
    return Web(asked["certificate"], asked["may_reach_inside"], {"User-Agent": "Podium", **headers})


def _servers(asked: Mapping[str, Any], out: BinaryIO) -> Servers:
    def tell(server: str, *, worked: bool, is_wrong: bool = False) -> None:
        said = {"server": server, "worked": worked, "is_wrong": is_wrong}
        frame(out, b"s", json.dumps(said).encode())

    headers = {"User-Agent": "Podium"}
    webs = {base["url"]: Web(asked["certificate"], base["inside"], headers) for base in asked["bases"]}
    return Servers(webs, tell)


# --- simplestreams -----------------------------------------------------------------------------------


def _simplestreams(asked: Mapping[str, Any], out: BinaryIO) -> None:
    servers = _servers(asked, out)
    offer = servers.first(lambda web, base: _offered(web, base, asked))
    _tell(
        out,
        fingerprint=offer.fingerprint,
        architecture=offer.architecture,
        properties=offer.properties,
        aliases=list(offer.aliases),
        size=sum(file.size for file in offer.files),
        filename=offer.files[-1].path.rsplit("/", 1)[-1],
    )
    if asked["only_look"]:
        return
    pause(out)
    for file in offer.files:
        _copy(out, file.part, servers, file)


def _offered(web: Web, base: str, asked: Mapping[str, Any]) -> simplestreams.Offer:
    found: list[simplestreams.Offer] = []
    for path in simplestreams.product_paths(_json(web, f"{base}/streams/v1/index.json", _INDEX_MOST)):
        found.extend(simplestreams.offers(_json(web, f"{base}/{path}", _INDEX_MOST)))
    return simplestreams.pick(found, asked["wanted"], asked["architecture"])


def _copy(out: BinaryIO, part: str, servers: Servers, file: simplestreams.File) -> None:
    digest, size = hashlib.sha256(), 0
    for chunk in servers.stream(file.path):
        size += len(chunk)
        if size > file.size:
            raise Invalid("TOO_LONG", f"{file.path} is longer than the {file.size} bytes it should have")
        digest.update(chunk)
        frame(out, _KINDS[part], chunk)
    if digest.hexdigest() != file.sha256:
        servers.are_wrong()
        raise Invalid("BAD_HASH", f"{file.path} has another hash than its server says; nothing was kept")


def _json(web: Web, url: str, most: int) -> Any:
    try:
        return json.loads(web.get(url, most))
    except (ValueError, RecursionError):
        raise Invalid("BAD_SERVER", f"{url[:200]} is no JSON") from None


# --- another server of the same API ------------------------------------------------------------------


def _lxd(asked: Mapping[str, Any], out: BinaryIO) -> None:
    query = f"project={quote(asked['project'])}" if asked["project"] not in ("", "default") else ""
    secret = f"secret={quote(asked['secret'])}" if asked["secret"] else ""
    asking = "&".join(filter(None, (secret, query)))
    servers = _servers(asked, out)
    image = servers.first(lambda web, base: _image_of(web, base, asked["wanted"], query, asking))
    fingerprint = str(image.get("fingerprint", ""))
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise Invalid("BAD_SERVER", "The other server names the image by something that is no fingerprint")
    _tell(
        out,
        fingerprint=fingerprint,
        architecture=str(image.get("architecture", "")),
        properties=_words(image.get("properties")),
        aliases=[],
        size=image["size"] if isinstance(image.get("size"), int) else 0,
        filename=str(image.get("filename", "")),
        public=bool(image.get("public")),
    )
    if asked["only_look"]:
        return
    pause(out)
    headers, chunks = servers.open(f"1.0/images/{fingerprint}/export?{asking}")
    if headers.get("content-type", "").startswith("multipart/"):
        for part, data in multipart(headers["content-type"], chunks):
            frame(out, _KINDS[part], data)
        return
    for chunk in chunks:
        frame(out, b"u", chunk)


def _image_of(web: Web, base: str, wanted: str, query: str, asking: str) -> dict[str, Any]:
    if not _FINGERPRINT.fullmatch(wanted):
        # A beginning of a fingerprint may be an alias too; clients that know no better send both as either.
        with contextlib.suppress(NotFound):
            wanted = _alias_target(web, base, wanted, query) or wanted
    return _metadata_of(web, f"{base}/1.0/images/{quote(wanted, safe='')}?{asking}")


def _alias_target(web: Web, base: str, alias: str, query: str) -> str:
    found = _metadata_of(web, f"{base}/1.0/images/aliases/{quote(alias, safe='')}?{query}")
    return str(found.get("target", ""))


def _metadata_of(web: Web, url: str) -> dict[str, Any]:
    answer = _json(web, url, _JSON_MOST)
    found = answer.get("metadata") if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        raise Invalid("BAD_SERVER", f"{url.split('?')[0][:200]} does not answer as a server of images does")
    return found


def _words(value: Any) -> dict[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def multipart(content_type: str, chunks: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield (part, bytes) of a form with the parts metadata and rootfs. Raises: Invalid."""
    message = email.parser.HeaderParser(policy=email.policy.HTTP).parsestr(
        f"Content-Type: {content_type}\n\n"
    )
    boundary = message.get_boundary() or ""
    if not boundary:
        raise Invalid("BAD_SERVER", "The server sent a form without a boundary")
    mark, buffer, part = b"\r\n--" + boundary.encode(), b"\r\n", ""
    for chunk in chunks:
        buffer += chunk
        while (at := buffer.find(mark)) >= 0:
            head_end = buffer.find(b"\r\n\r\n", at)
            is_last = buffer[at + len(mark) : at + len(mark) + 2] == b"--"
            if head_end < 0 and not is_last:
                break
            if part and at:
                yield part, buffer[:at]
            if is_last:
                return
            part = _part_name(buffer[at + len(mark) : head_end])
            buffer = buffer[head_end + 4 :]
        else:
            keep = len(mark) + 2
            if part and len(buffer) > keep:
                yield part, buffer[:-keep]
                buffer = buffer[-keep:]
        if len(buffer) > 8 * _CHUNK:
            raise Invalid("BAD_SERVER", "The server sent a form whose parts have no end")
    raise Invalid("BAD_SERVER", "The server's form ended too early")


def _part_name(head: bytes) -> str:
    parsed = email.parser.BytesHeaderParser(policy=email.policy.HTTP).parsebytes(
        head.lstrip(b"\r\n") + b"\r\n\r\n"
    )
    name = str(parsed.get_param("name", "", "content-disposition"))
    if name not in ("metadata", "rootfs"):
        raise Invalid("BAD_PART", "An image of a container has the parts metadata and rootfs")
    return name


# --- a file somewhere --------------------------------------------------------------------------------


def _url(asked: Mapping[str, Any], out: BinaryIO) -> None:
    """The header protocol: a HEAD names URL and hash of the file, and may name properties."""
    about = {"LXD-Server-Architectures": asked["architecture"], "LXD-Server-Version": "5.0.2"}
    web = _web(asked, **about)
    headers = web.head(asked["server"])
    url, fingerprint = headers.get("lxd-image-url", ""), headers.get("lxd-image-hash", "")
    if not url or not fingerprint:
        words = "Missing LXD-Image-URL or LXD-Image-Hash header: the address must answer HEAD with both"
        raise Invalid("NO_HEADERS", words)
    properties = dict(parse_qsl(headers.get("lxd-image-properties", "")))
    _tell(
        out,
        fingerprint=fingerprint,
        properties=properties,
        aliases=[],
        size=0,
        filename=url.rsplit("/", 1)[-1],
    )
    if asked["only_look"]:
        return
    pause(out)
    for chunk in web.stream(url):
        frame(out, b"u", chunk)


# --- a registry --------------------------------------------------------------------------------------


def _oci(asked: Mapping[str, Any], out: BinaryIO) -> None:
    """Who may name a server inside names that one; where it leads to must lie outside, or there as well."""
    from services.image.sources import oci  # the other protocols need none of it

    host = urlsplit(asked["server"]).hostname or ""
    web = replace(_web(asked), may_reach_inside=False, inside_host=host if asked["may_reach_inside"] else "")
    try:
        oci.bring(asked, web, partial(_tell, out), partial(frame, out), partial(pause, out))
    except MemoryError:
        raise Invalid("TOO_LARGE", "The image has more files than can be looked through at once") from None


_SOURCES = {"simplestreams": _simplestreams, "lxd": _lxd, "url": _url, "oci": _oci}

if __name__ == "__main__":
    sys.exit(main())
