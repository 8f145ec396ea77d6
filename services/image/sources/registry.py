"""A registry as the distribution specification has it: manifests, blobs, and who may read them.

Blocking; it runs in a child. User and password go to the registry and to the service that it names for
tokens, tokens to the registry only; an address that it leads to (where blobs lie, say) gets neither.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from core.errors import Forbidden, Invalid, NotFound, PodiumError
from services.image.domain import oci
from services.image.sources.web import Web

_TOKEN_MOST = 1 << 20
_REFUSALS = ("NOT_THERE", "NO_ACCESS")
_FIELD = re.compile(r'([A-Za-z_]+)="([^"\\]*)"')


class Registry:
    """One image of one registry. secret: "USER:PASSWORD", empty for anybody."""

    def __init__(self, web: Web, server: str, reference: oci.Reference, secret: str = "") -> None:
        parts = urlsplit(server)
        self._base = f"{parts.scheme}://{parts.netloc}/v2"
        self.reference = reference
        self._web = replace(web, login=Token(web, parts, secret))

    def manifest(self, wanted: str) -> bytes:
        """Return a manifest or index by tag or digest, proved if by digest. Raises: as Web.get()."""
        web = replace(self._web, headers={**self._web.headers, "Accept": oci.ACCEPT})
        try:
            data = web.get(self._url("manifests", wanted), oci.MANIFEST_MOST)
        except NotFound:
            raise NotFound("NO_IMAGE", f"The registry has no image {self.reference.shown[:200]}") from None
        if ":" in wanted and oci.digest_of(data, wanted) != wanted:
            raise Invalid("BAD_HASH", "A manifest has another digest than the one it was asked by")
        return data

    def small(self, blob: oci.Blob) -> bytes:
        """Return a whole blob, proved. Raises: as Web.get()."""
        return b"".join(self.blob(blob))

    def blob(self, blob: oci.Blob) -> Iterator[bytes]:
        """Yield a blob, which is proved when it ends. Raises: Invalid for another size or digest."""
        digest, size = oci.hasher(blob.digest), 0
        for chunk in self._web.stream(self._url("blobs", blob.digest)):
            size += len(chunk)
            if size > blob.size:
                raise Invalid(
                    "TOO_LONG", f"{blob.digest[:19]}… is longer than the {blob.size} bytes it should have"
                )
            digest.update(chunk)
            yield chunk
        if size != blob.size:
            raise Invalid("TOO_SHORT", f"{blob.digest[:19]}… ended after {size} of {blob.size} bytes")
        if digest.hexdigest() != blob.digest.partition(":")[2]:
            raise Invalid("BAD_HASH", f"{blob.digest[:19]}… has another digest; nothing was kept")

    def _url(self, kind: str, what: str) -> str:
        return f"{self._base}/{self.reference.name}/{kind}/{quote(what, safe=':')}"


@dataclass
class Token:
    """Implements web.Login for one registry, and asks for a token where it wants one."""

    web: Web
    registry: SplitResult
    secret: str = field(repr=False)
    _header: str = field(default="", repr=False)

    def header(self, parts: SplitResult) -> str:
        return self._header if self._is_registry(parts) else ""

    def answer(self, parts: SplitResult, challenge: str) -> bool:
        """Get what the challenge asks for. Raises: Forbidden, Invalid, Unavailable."""
        if not self._is_registry(parts):
            return False
        scheme, _, rest = challenge.partition(" ")
        # Of several challenges the first one counts.
        fields = {key.lower(): value for key, value in reversed(_FIELD.findall(rest))}
        before = self._header
        if scheme.lower() == "bearer":
            self._header = f"Bearer {self._token(fields)}"
        elif scheme.lower() == "basic" and self.secret:
            self._header = self._basic()
        return self._header != before

    def _is_registry(self, parts: SplitResult) -> bool:
        return (parts.scheme, parts.netloc) == (self.registry.scheme, self.registry.netloc)

    def _basic(self) -> str:
        return f"Basic {base64.b64encode(self.secret.encode()).decode()}"

    def _token(self, fields: Mapping[str, str]) -> str:
        realm = fields.get("realm", "")
        if self.registry.scheme == "https" and urlsplit(realm).scheme != "https":
            raise Forbidden("DOWNGRADED", "The registry wants its tokens asked for without encryption")
        asked = urlencode({key: fields[key] for key in ("service", "scope") if key in fields})
        web = self.web
        if self.secret:
            # Of this one address only: it is not passed on where that leads to.
            web = replace(web, login=Token(web, urlsplit(realm), self.secret, self._basic()))
        try:
            answer = json.loads(web.get(f"{realm}{'&' if '?' in realm else '?'}{asked}", _TOKEN_MOST))
        except (ValueError, RecursionError):
            raise Invalid(
                "BAD_SERVER", "The registry's service for tokens does not answer with JSON"
            ) from None
        except (NotFound, Forbidden) as exc:
            if exc.reason not in _REFUSALS:
                raise
            why = "refuses user and password" if self.secret else "wants a user and a password"
            raise Forbidden("NO_ACCESS", f"The registry {why} for {self.registry.netloc[:200]}") from exc
        token = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise Invalid("BAD_SERVER", "The registry's service for tokens gives none")
        return token


def with_library(registry: Registry, exc: PodiumError) -> oci.Reference | None:
    """Return where some registries keep an image whose name has no folder; None where that is no answer."""
    reference = registry.reference
    if "/" in reference.name or not isinstance(exc, NotFound | Forbidden):
        return None
    return replace(reference, name=f"library/{reference.name}")
