"""HTTP as the downloads of images need it: checked addresses, pinned certificates, bounds, resumption.

The address that was checked is the one that is connected to, so a name that changes its mind between
the two (DNS rebinding) gains nothing; each redirect is checked again. Blocking; it runs in a child.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import SplitResult, urljoin, urlsplit

from core.addresses import is_outside
from core.errors import Forbidden, Invalid, NotFound, PodiumError, Unavailable

UNREACHABLE = "UNREACHABLE"
_REDIRECTS = 5
_RETRIES = 4
_TIMEOUT_S = 60.0
_CONNECT_S = 15.0
_PAUSE_S = 0.2
_MOST_ADDRESSES = 4
_CHUNK = 1 << 20
_SCHEMES = {"http": 80, "https": 443}


class Login(Protocol):
    """What proves who asks. It is told each address, since not every one may learn it."""

    def header(self, parts: SplitResult) -> str:
        """Return the header Authorization for an address; empty for none."""
        ...

    def answer(self, parts: SplitResult, challenge: str) -> bool:
        """Take what a server said with 401; return whether asking again may help."""
        ...


@dataclass(frozen=True)
class Web:
    """How to ask. certificate: PEM of the only one that is believed; empty for any that a known CA signed.

    inside_host: the one host that may be inside though others may not.
    """

    certificate: str = ""
    may_reach_inside: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    login: Login | None = None
    inside_host: str = ""

    def get(self, url: str, most: int) -> bytes:
        """Return a whole body of at most *most* bytes. Raises: Invalid, NotFound, Forbidden, Unavailable."""
        body = b""
        for chunk in self.stream(url):
            body += chunk
            if len(body) > most:
                raise Invalid("TOO_LARGE", f"{url[:200]} is larger than {most} bytes")
        return body

    def head(self, url: str) -> Mapping[str, str]:
        """Return the headers, with names in lower case, that a HEAD of *url* is answered with."""
        _, response = self._open("HEAD", url, {})
        response.close()
        return {name.lower(): value for name, value in response.getheaders()}

    def open(self, url: str) -> tuple[Mapping[str, str], Iterator[bytes]]:
        """Return headers and body of one answer, taken up where it breaks off if the server can."""
        _, response = self._open("GET", url, {})
        headers = {name.lower(): value for name, value in response.getheaders()}
        return headers, self._whole(url, response, headers)

    def _whole(
        self, url: str, response: http.client.HTTPResponse, headers: Mapping[str, str]
    ) -> Iterator[bytes]:
        got = 0
        try:
            for chunk in _pieces(response):
                got += len(chunk)
                yield chunk
            return
        except (OSError, http.client.HTTPException) as exc:
            if not got or headers.get("accept-ranges") != "bytes":
                raise unreachable(url, exc) from exc
        yield from self.stream(url, got)

    def stream(self, url: str, start: int = 0) -> Iterator[bytes]:
        """Yield a body from *start* on; where the connection ends too early, go on if the server can."""
        got, since, left = start, start, _RETRIES
        while True:
            headers = {"Range": f"bytes={got}-"} if got else {}
            try:
                _, response = self._open("GET", url, headers)
                _refuse_other_piece(url, response, got)
                for chunk in _pieces(response):
                    got += len(chunk)
                    yield chunk
                return
            except (OSError, http.client.HTTPException, Unavailable) as exc:
                if got - since >= _CHUNK:
                    since, left = got, _RETRIES  # it got somewhere
                left -= 1
                has_said = isinstance(exc, Unavailable) and exc.reason != UNREACHABLE
                if has_said or got == start or left < 0:
                    raise exc if isinstance(exc, Unavailable) else unreachable(url, exc) from exc
                time.sleep(_PAUSE_S * (_RETRIES - left))

    def _open(
        self, method: str, url: str, headers: Mapping[str, str]
    ) -> tuple[str, http.client.HTTPResponse]:
        for _ in range(_REDIRECTS + 1):
            parts = checked_url(url)
            response = self._ask(method, parts, headers)
            if response.status == 401 and self.login:
                challenge = response.getheader("WWW-Authenticate") or ""
                response.close()
                if self.login.answer(parts, challenge):
                    response = self._ask(method, parts, headers)
                if response.status in (401, 403):
                    why = f"{url[:200]} is not for whoever asks with these credentials"
                    raise Forbidden("NO_ACCESS", why)
            if response.status not in (301, 302, 303, 307, 308):
                _refuse(url, response)
                return url, response
            target = urljoin(url, response.getheader("Location") or "")
            response.close()
            if parts.scheme == "https" and urlsplit(target).scheme != "https":
                raise Forbidden("DOWNGRADED", f"{url[:200]} leads from https to something else")
            url = target
        raise Invalid("REDIRECTS", f"{url[:200]} leads in circles")

    def _ask(self, method: str, parts: SplitResult, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        connection = self.connect(parts)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        own = self.login.header(parts) if self.login else ""
        more = {"Authorization": own} if own else {}
        try:
            connection.request(method, path or "/", headers={**self.headers, **headers, **more})
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as exc:
            raise unreachable(parts.geturl(), exc) from exc

    def connect(self, parts: SplitResult) -> http.client.HTTPConnection:
        host, port = parts.hostname or "", parts.port or _SCHEMES[parts.scheme]
        if parts.scheme == "http":
            connection: Any = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        else:
            connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=self._context())
        try:
            raw: Any = self._reach(host, port)
            if parts.scheme == "https":
                raw = connection._context.wrap_socket(raw, server_hostname=host)
                self._check_pin(raw, host)
        except OSError as exc:
            raise unreachable(parts.geturl(), exc) from exc
        raw.settimeout(_TIMEOUT_S)
        connection.sock = raw
        return connection  # type: ignore[no-any-return]

    def _reach(self, host: str, port: int) -> socket.socket:
        """Connect to the first of its addresses that answers; all of them must be allowed."""
        failed: OSError = OSError("it has no address")
        for address in self._addresses(host, port):
            try:
                return socket.create_connection(address, timeout=_CONNECT_S)
            except OSError as exc:
                failed = exc
        raise failed

    def _addresses(self, host: str, port: int) -> list[tuple[str, int]]:
        try:
            found = [str(a[4][0]) for a in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except UnicodeError:  # an empty or endless part, which is no name of the DNS
            raise Invalid("BAD_URL", f"{host[:200]!r} is no name of a host", about=host[:200]) from None
        for address in found:
            is_allowed = self.may_reach_inside or host == self.inside_host
            if not is_allowed and not is_outside(address):
                raise Forbidden(
                    "INSIDE", f"{host[:200]} is an address inside; an administrator may allow it", about=host
                )
        return [(address, port) for address in dict.fromkeys(found)][:_MOST_ADDRESSES]

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self.certificate:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # the pin is checked instead, before a byte is said
        return context

    def _check_pin(self, connection: Any, host: str) -> None:
        if not self.certificate:
            return
        try:
            wanted = ssl.PEM_cert_to_DER_cert(self.certificate.strip())
        except ValueError:
            raise Invalid("BAD_CERTIFICATE", "The certificate given for the server is not PEM") from None
        if connection.getpeercert(binary_form=True) != wanted:
            raise Forbidden("OTHER_SERVER", f"{host[:200]} shows another certificate than the one given")


def checked_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in _SCHEMES and bool(parts.hostname) and (parts.port or 1) > 0
        valid = valid and f"{parts.path}{parts.query}".isascii()  # else HTTP cannot say it
    except ValueError:
        valid = False
    if not valid or any(ord(c) < 33 or ord(c) == 127 for c in url):
        raise Invalid("BAD_URL", f"{url[:200]!r} is no http or https address", about=url[:200])
    return parts


def _refuse(url: str, response: http.client.HTTPResponse) -> None:
    if response.status in (200, 206):
        return
    response.close()
    if response.status in (401, 403, 404, 410):
        raise NotFound("NOT_THERE", f"{url[:200]} is not there (the server said {response.status})")
    raise Unavailable("SERVER_SAID", f"{url[:200]}: the server said {response.status}")


def _refuse_other_piece(url: str, response: http.client.HTTPResponse, start: int) -> None:
    if not start:
        return
    sent = response.getheader("Content-Range") or f"bytes {start}-"
    if response.status != 206 or not sent.startswith(f"bytes {start}-"):
        response.close()
        raise Unavailable("NO_RESUME", f"{url[:200]} broke off and cannot be resumed")


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the body; a connection that ends before Content-Length is an error, not an end."""
    left = response.length
    while chunk := response.read(_CHUNK):
        if left is not None:
            left -= len(chunk)
        yield chunk
    if left:
        raise http.client.IncompleteRead(b"", left)


def unreachable(url: str, exc: Exception) -> PodiumError:
    return Unavailable(UNREACHABLE, f"{url[:200]} cannot be read: {exc or type(exc).__name__}")
