"""What the use cases need from disk and programs. Implemented by blobs/ and formats/."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from services.image.formats.form import Form
from services.image.sources.recipe import Recipe

# Told how far something is, in words for people.
Tell = Callable[[str], Awaitable[None]]
PARTS = ("unified", "metadata", "rootfs")
# No part of an image: how many bytes came of what is put together before it is sent on, in digits.
CAME = "came"
# No part of an image: what is mounted of a base that came without one.
SQUASHFS = "squashfs"


class Blobs(Protocol):
    """Files of images, by fingerprint. Everything may be repeated."""

    def staging(self, id: str) -> Path:
        """Return the folder of an upload, made if absent."""
        ...

    def drop_staging(self, id: str) -> None:
        """Remove a staging folder. Slow where files are large."""
        ...

    def staged(self) -> list[str]: ...

    def keep(self, id: str, fingerprint: str, *, split: bool) -> None:
        """Move an upload's files to where the fingerprint says. Survives repeating."""
        ...

    def keep_base(self, id: str, fingerprint: str) -> None:
        """Move a staged squashfs, which is no image, to where the fingerprint says. Survives repeating."""
        ...

    def part(self, fingerprint: str, part: str) -> Path: ...

    def sha256(self, fingerprint: str, part: str) -> str:
        """Return the hash of a part, or of SQUASHFS. Slow the first time. Raises: FileNotFoundError."""
        ...

    def squashfs(self, fingerprint: str) -> Path: ...

    def hash_of(self, path: Path) -> str:
        """Return the SHA-256 of a file. Slow."""
        ...

    def fingerprints(self) -> set[str]: ...

    def put_aside(self) -> None:
        """Take all files out of sight, to be brought back one by one."""
        ...

    def bring_back(self, fingerprint: str) -> None:
        """Put back what was put aside of an image, if it was."""
        ...

    def drop_aside(self, older_than_s: float) -> None:
        """Remove what was put aside longer ago than that."""
        ...

    def discard(self, fingerprint: str, id: str) -> None:
        """Move an image's files to the staging folder *id*, at once; dropping that frees the disk."""
        ...


class HeadStart(Protocol):
    """A conversion of what is still arriving. It may fail without a word: convert() says why."""

    async def feed(self, chunk: bytes) -> None: ...

    def input(self) -> int:
        """Return a descriptor to write to instead, not blocking and the caller's to close before done()."""
        ...

    async def done(self, limit_s: float) -> bool: ...

    async def drop(self) -> None: ...


class Converter(Protocol):
    """Archives of strangers to a squashfs of ours, outside root and within bounds."""

    async def head_start(
        self, first: bytes, source: Path, target: Path, form: Form = Form.ANY
    ) -> HeadStart | None:
        """Begin to convert what begins with *first* and is being stored in *source*; None if it must wait."""
        ...

    async def convert(
        self, source: Path, target: Path, tell: Tell | None = None, form: Form = Form.ANY
    ) -> None:
        """Raises: Invalid when *source* cannot be read, has another form, or exceeds the bounds."""
        ...

    async def read(self, squashfs: Path, name: str, limit: int) -> bytes:
        """Return a regular file. Raises: Invalid when it is absent, something else or larger."""
        ...

    def lost_acls(self, squashfs: Path) -> int:
        """Return how many files have no ACL in it, though they have one in the archive."""
        ...

    async def is_directory(self, squashfs: Path, name: str) -> bool: ...


@dataclass(frozen=True)
class CopyFile:
    """A file of an image on some member; part: of PARTS, or SQUASHFS. sha256: "" where nobody asked."""

    part: str
    name: str
    size: int
    sha256: str = ""


class Peers(Protocol):
    """The image services of other members."""

    async def describe(self, member: str, fingerprint: str, *, hashed: bool) -> list[CopyFile]:
        """Return what it has of an image. Raises: NotFound, Unavailable."""
        ...

    def read(self, member: str, fingerprint: str, part: str, offset: int) -> AsyncGenerator[bytes, None]:
        """Yield a file from *offset* on. Raises: NotFound, Unavailable."""
        ...


class Builder(Protocol):
    """Images from packages, without privileges."""

    def parts(self, recipe: Recipe, work: Path, tell: Tell) -> AsyncGenerator[tuple[str, bytes], None]:
        """Build below *work*, and yield a split image as it comes: ("metadata" or "rootfs", bytes).

        Raises: Invalid, Unsupported. Closing it early ends the build.
        """
        ...


@dataclass(frozen=True)
class About:
    """What came with a root. metadata: as parsed; templates: name of the file to its text."""

    metadata: dict[str, Any] = field(default_factory=dict)
    templates: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class RemoteSource:
    """An image on another server. protocol: simplestreams, lxd, url or oci; wanted: an alias or fingerprint.

    certificate: PEM of the server, when it is no public one. may_reach_inside: addresses of this host
    and its networks may be asked.
    """

    protocol: str
    server: str
    wanted: str = ""
    by_alias: bool = False
    certificate: str = ""
    secret: str = ""
    project: str = ""
    may_reach_inside: bool = False
    architecture: str = ""
    """Whose image an alias means; empty for this host's."""


@dataclass(frozen=True)
class Known:
    """What a server says of an image before its bytes; size in bytes, 0 for unknown.

    Registries know no fingerprint: there it is empty, and digest, that of a manifest, says what it is.
    """

    fingerprint: str
    architecture: str = ""
    properties: dict[str, str] = field(default_factory=dict)
    aliases: list[str] = field(default_factory=list)
    size: int = 0
    filename: str = ""
    public: bool = False
    digest: str = ""


Told = Callable[[Known], None]


class Remotes(Protocol):
    """Servers of images."""

    async def look(self, source: RemoteSource) -> Known:
        """Raises: NotFound, Invalid, Forbidden, TooLate, Unavailable."""
        ...

    def parts(self, source: RemoteSource, told: Told) -> AsyncGenerator[tuple[str, bytes], None]:
        """Yield an image as it comes, after *told* heard what it is. Closing it early ends the download.

        First comes (CAME, 0): nothing of the image is asked for before the next is. Where it is put
        together first, what is yielded meanwhile is (CAME, how many bytes came).

        Raises: as look().
        """
        ...

    def has_others(self, source: RemoteSource) -> bool:
        """Whether a mirror is left that may be asked, after one that was asked was wrong."""
        ...


@dataclass(frozen=True)
class ParcelFile:
    """A file to be sent."""

    part: str
    path: str
    name: str
    size: int


@dataclass(frozen=True)
class Parcel:
    """An image for another server.

    certificate: PEM of the only one that is believed; empty for any that a known CA signed.
    """

    target: str
    certificate: str
    secret: str
    project: str
    fingerprint: str
    profiles: tuple[str, ...]
    files: tuple[ParcelFile, ...]
    may_reach_inside: bool


class Targets(Protocol):
    """Other servers that await an image."""

    def push(self, parcel: Parcel) -> AsyncGenerator[int, None]:
        """Send it, yielding how many bytes went; it ends when the other server has made an image of it.

        Raises: Invalid, Forbidden, Unavailable, WrongState, TooLate. Closing it early ends the sending.
        """
        ...


class Roots(Protocol):
    """Root file systems of instances."""

    def pack(
        self,
        project: str,
        name: str,
        snapshot: str,
        *,
        compression: str,
        files: Mapping[str, bytes],
        tell: Tell,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the root as an archive: a squashfs, or a tarball of *files* and the root as "rootfs".

        Raises: NotFound, WrongState. Closing it early ends the packing.
        """
        ...

    async def about(self, project: str, name: str, snapshot: str) -> About:
        """Return metadata and templates of an instance or a snapshot. Raises: NotFound."""
        ...

    async def room(self, project: str) -> int | None:
        """Return how many bytes limits.disk leaves to a project; None without it. Raises: NotFound."""
        ...
