"""A real registry on the loopback, and an image made of this machine's Debian packages to fill it with."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.contract.conftest import free_port
from tests.fakes.oci_layout import write_layout

_PROGRAMS = ("dash", "sleep", "id", "cat", "pwd", "ls")
# User "me", password "secret"; the server wants bcrypt.
_USERS = "me:$2y$05$6oibrfLJj6nOIQsJsAxVieWAczhN4TdV96DMob2XpjtNnzs38yYHS\n"
USER, PASSWORD = "me", "secret"
_PEOPLE = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/srv:/bin/sh\n"


@dataclass(frozen=True)
class Registry:
    host: str
    credentials: tuple[str, ...]

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def push(self, name: str, layers: list[bytes], run: dict[str, Any], folder: Path) -> None:
        """Push an image of uncompressed *layers*; *folder* is made for it and removed."""
        write_layout(folder, layers, run)
        argv = ["skopeo", "copy", "-q", "--dest-tls-verify=false", *self.credentials]
        argv += [f"oci:{folder}:1", f"docker://{self.host}/{name}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(folder)


@contextlib.contextmanager
def serving(folder: Path, *, guarded: bool = False) -> Iterator[Registry]:
    """Run a registry that keeps what it has below *folder*."""
    host = f"127.0.0.1:{free_port()}"
    config = f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{host}'}}\n"
    config += f"storage:\n  filesystem: {{rootdirectory: {folder}/store}}\n"
    if guarded:
        (folder / "users").write_text(_USERS)
        config += f"auth:\n  htpasswd: {{realm: tests, path: {folder}/users}}\n"
    (folder / "config.yml").write_text(config)
    argv = ["docker-registry", "serve", str(folder / "config.yml")]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _await(f"http://{host}/v2/")
            credentials = ("--dest-creds", f"{USER}:{PASSWORD}") if guarded else ()
            yield Registry(host, credentials)
        finally:
            process.kill()


def _await(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the registry does not answer")


def debian_layer() -> bytes:
    """Return a small root of programs of this machine's packages, with the libraries that they need."""
    files = {f"/bin/{name}": shutil.which(name) or "" for name in _PROGRAMS} | {"/bin/sh": "/bin/dash"}
    for path in list(files.values()):
        said = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        files |= {word: word for word in said.split() if word.startswith("/")}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as made:
        for name, path in sorted(files.items()):
            info = made.gettarinfo(str(Path(path).resolve()), arcname=name.lstrip("/"))
            info.type, info.mtime, info.mode = tarfile.REGTYPE, 0, 0o755
            content = Path(path).read_bytes()
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
        info = tarfile.TarInfo("etc/passwd")
        info.size, info.mode = len(_PEOPLE), 0o644
        made.addfile(info, io.BytesIO(_PEOPLE))
    return buffer.getvalue()
