"""An image of a registry as a split image of ours: metadata.yaml, and its layers as one archive.

The layers lie in files without a name while they are read, so nothing is left whenever this ends. The
same manifest gives the same bytes: order, headers and compression depend on nothing else.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from subprocess import DEVNULL, PIPE
from typing import Any, BinaryIO, TypeVar

import yaml

from core.applications import checked_application
from core.errors import Invalid, PodiumError, TooLate
from services.image.domain import accounts, oci
from services.image.domain.layers import FILE, Tree
from services.image.formats import magic
from services.image.formats.layerfiles import LayerFiles, archive, content, entries
from services.image.formats.scanner import Limits, TarScanner
from services.image.formats.tarheader import BLOCK, header, padded
from services.image.sources.registry import Registry, with_library
from services.image.sources.web import Web

_CHUNK = 1 << 20
_LIMIT_S = 7200.0
_PATIENCE_S = 1.0
_BEAT_EVERY = 4096
_AT_ONCE = 3
_STACK = 1 << 20
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What the engine mounts upon, or writes for each instance.
_NEEDED = ("dev", "proc", "sys", "etc", "run")
T = TypeVar("T")
Emit = Callable[[bytes, bytes], None]
Tell = Callable[..., None]


@dataclass
class Meter:
    """How much came, of all that should; nothing may take for ever. For whichever thread.

    got: bytes as they came; unpacked: what became of them.
    """

    emit: Emit
    limits: Limits
    got: int = 0
    unpacked: int = 0
    ends_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, size: int) -> None:
        """Raises: TooLate."""
        if time.monotonic() > self.ends_at:
            raise TooLate("SLOW", f"The registry took longer than {_LIMIT_S / 3600:g} hours")
        with self._lock:
            self.got += size
            self.emit(b"p", b"%d" % self.got)

    def add_unpacked(self, size: int) -> None:
        """Raises: Invalid, where all layers together grow beyond what their bytes allow."""
        with self._lock:
            self.unpacked += size
            most = self.limits.allowed_bytes(self.got)
            if self.unpacked > most:
                raise oci.bad(f"it unpacks to more than {most} bytes")

    def beating(self, items: Iterable[T]) -> Iterator[T]:
        """Yield *items*, with a sign of life now and then: whoever waits does not wait for ever."""
        for count, item in enumerate(items):
            if not count % _BEAT_EVERY:
                self.add(0)
            yield item

    def of(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield *chunks*, counted."""
        for chunk in chunks:
            self.add(len(chunk))
            yield chunk


def bring(
    asked: Mapping[str, Any],
    web: Web,
    tell: Tell,
    emit: Emit,
    pause: Callable[[], None] = lambda: None,
    limits: Limits = Limits(),  # noqa: B008  frozen
) -> None:
    """Tell what the image is, then emit its parts after *pause* returned. Raises: PodiumError."""
    registry, top = _found(asked, web)
    manifest, digest = _manifest(registry, top, asked["architecture"])
    raw_config = registry.small(manifest.config)
    config = oci.parse_config(oci.parse_json(raw_config, "its configuration"), manifest)
    reference = registry.reference
    tell(
        fingerprint="",
        digest=digest,
        architecture=config.architecture,
        properties={
            "description": config.labels.get("org.opencontainers.image.title", "")[:200] or reference.shown,
            "id": reference.shown,
            "type": "oci",
        },
        aliases=[],
        size=sum(layer.size for layer in manifest.layers),
        filename=f"{reference.shown.rpartition('/')[2].replace(':', '_')}.tar.zst",
    )
    if asked["only_look"]:
        return
    pause()
    meter = Meter(emit, limits, ends_at=time.monotonic() + _LIMIT_S)
    meter.add(0)
    tree = Tree(most=min(limits.entries, Tree.most))
    with LayerFiles(asked["scratch"]) as files:
        for file in _layers(registry, manifest, config, meter, files):
            tree.lay(meter.beating(entries(files.archive(file))))
        _complete(tree, config)
        emit(b"m", _metadata(config, tree, digest))
        _emit_root(tree, emit, meter)


def _found(asked: Mapping[str, Any], web: Web) -> tuple[Registry, bytes]:
    reference = oci.parse_reference(asked["server"], asked["wanted"])
    registry = Registry(web, asked["server"], reference, asked["secret"])
    try:
        return registry, registry.manifest(reference.tag_or_digest)
    except PodiumError as exc:
        other = with_library(registry, exc)
        if other is None:
            raise
        registry = Registry(web, asked["server"], other, asked["secret"])
        try:
            return registry, registry.manifest(other.tag_or_digest)
        except PodiumError:
            raise exc from None


def _manifest(registry: Registry, data: bytes, architecture: str) -> tuple[oci.Manifest, str]:
    """Return the manifest for this machine, and its digest, through indexes of indexes."""
    for _ in range(oci.MOST_DEPTH + 1):
        raw = oci.parse_json(data, "its manifest")
        chosen = oci.choose(raw, architecture)
        if chosen is None:
            return oci.parse_manifest(raw), oci.digest_of(data)
        data = registry.manifest(chosen.digest)
    raise oci.bad(f"its indexes lie deeper than {oci.MOST_DEPTH}")


def _layers(
    registry: Registry, manifest: oci.Manifest, config: oci.Config, meter: Meter, files: LayerFiles
) -> Iterator[BinaryIO]:
    """Yield files of the layers in their order, while the next ones come. Raises: PodiumError."""
    threading.stack_size(_STACK)
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        coming = []
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            file = files.new()
            coming.append((file, pool.submit(_unpack, registry.blob(layer), file, diff_id, meter)))
        for file, arrived in coming:
            arrived.result()
            yield file
    finally:
        # What is on its way may wait for a server; this process is ended before that does.
        pool.shutdown(wait=False, cancel_futures=True)


def _unpack(chunks: Iterator[bytes], file: BinaryIO, diff_id: str, meter: Meter) -> None:
    """Write a layer to *file*, decompressed and looked through. Raises: PodiumError."""
    first = next(chunks, b"")
    kind = magic.kind_of(first)
    if kind not in ("gz", "zst", "tar", ""):
        raise oci.bad(f"a layer is compressed as {kind}, which registries do not have")
    digest, scanner = oci.hasher(diff_id), TarScanner(meter.limits, lambda: meter.got)
    with closing(_decompressed(kind, meter.of(chain((first,), chunks)))) as pieces:
        for data in pieces:
            scanner.feed(data)
            digest.update(data)
            meter.add_unpacked(len(data))
            file.write(data)
    if scanner.entries or not scanner.ended:
        scanner.finish()
    if digest.hexdigest() != diff_id.partition(":")[2]:
        raise Invalid("BAD_HASH", f"A layer holds something else than {diff_id[:19]}… says; nothing was kept")


def _decompressed(kind: str, chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
    if kind in ("tar", ""):
        yield from chunks
        return
    argv = ["prlimit", "--cpu=900", "--", *magic.decompressor(kind)]
    yield from _through(argv, chunks, oci.bad("a layer's data is damaged"))


def _through(argv: list[str], chunks: Iterator[bytes], failure: PodiumError) -> Generator[bytes, None, None]:
    """Yield what a program makes of *chunks*. Raises: *failure* when it fails, and what *chunks* raises."""
    child = subprocess.Popen(argv, bufsize=_CHUNK, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
    assert child.stdin and child.stdout
    feeder = _Feeder(chunks, child.stdin)
    feeder.start()
    try:
        while data := child.stdout.read(_CHUNK):
            yield data
        feeder.finish()
        if child.wait():
            raise failure
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        feeder.join(_PATIENCE_S)  # it may wait for a server; this process ends before that does


class _Feeder(threading.Thread):
    """Passes on what comes; what stops it is raised where it is waited for."""

    def __init__(self, chunks: Iterator[bytes], target: Any) -> None:
        super().__init__(daemon=True)
        self._chunks = chunks
        self._target = target
        self._failed: Exception | None = None

    def run(self) -> None:
        try:
            with suppress(BrokenPipeError):
                for chunk in self._chunks:
                    self._target.write(chunk)
        except Exception as exc:
            self._failed = exc
        finally:
            with suppress(OSError):
                self._target.close()

    def finish(self) -> None:
        self.join()
        if self._failed:
            raise self._failed


def _complete(tree: Tree, config: oci.Config) -> None:
    for path in (*_NEEDED, config.cwd):
        tree.ensure_folder(path)
    tree.ensure_folder("tmp", 0o1777)


def _metadata(config: oci.Config, tree: Tree, digest: str) -> bytes:
    """Return the archive that holds metadata.yaml. Raises: Invalid."""
    read = partial(_small, tree)
    account = accounts.find(config.user, read("etc/passwd"), read("etc/group"))
    environment = {"PATH": _PATH, "HOME": account.home, **config.environment}
    application = {
        "command": list(config.command),
        "cwd": config.cwd,
        "uid": account.uid,
        "gid": account.gid,
        "environment": environment,
        "stop_signal": config.stop_signal,
    }
    properties = {"oci.digest": digest}
    if config.ports:
        properties["oci.ports"] = ", ".join(config.ports)[:1024]
    known = {
        "architecture": config.architecture,
        "creation_date": config.created_at,
        "properties": properties,
        "oci": checked_application(application, oci.bad),
    }
    text = yaml.dump(known, Dumper=yaml.CSafeDumper, allow_unicode=True, sort_keys=True).encode()
    return header("metadata.yaml", b"0", mode=0o644, size=len(text)) + padded(text) + bytes(2 * BLOCK)


def _small(tree: Tree, path: str) -> str:
    """Return the text of a file, the beginning where it is large; empty where there is none."""
    node = tree.find(path)
    if node is None or node.kind != FILE:
        return ""
    return b"".join(content(node, _CHUNK)).decode("utf-8", "replace")


def _emit_root(tree: Tree, emit: Emit, meter: Meter) -> None:
    """Emit the files as an archive, compressed as it is written."""
    failure = Invalid("NOT_PACKED", "The image could not be compressed; look at memory and disk")
    with closing(
        _through(["zstd", "-q", "-1", "-T1", "-c"], meter.beating(archive(tree)), failure)
    ) as pieces:
        for data in pieces:
            emit(b"r", data)
