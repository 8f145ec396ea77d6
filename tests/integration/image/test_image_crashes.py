"""What a service killed in the middle of an import finds again, and makes of it."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from core.operations.operation import RUNNING, SUCCEEDED, Operation
from core.operations.runner import Runner
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from services.image.blobs.files import FileBlobs
from services.image.formats.squashfs import SquashfsConverter
from services.image.store import ImageStore
from services.image.usecases.imports import KIND, Imports
from services.image.usecases.receive import MADE

YAML = b"architecture: amd64\ncreation_date: 1700000000\n"


def tarball(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


PARTS = {
    False: {"unified": tarball({"metadata.yaml": YAML, "rootfs/etc/hostname": b"x"})},
    True: {"metadata": tarball({"metadata.yaml": YAML}), "rootfs": tarball({"etc/hostname": b"x"})},
}


async def killed(root: Path, memory: MemoryStore, *, split: bool, at: str) -> str:
    """Leave files and operation as a process killed at that point does; return the fingerprint."""
    blobs, parts = FileBlobs(root), PARTS[split]
    fingerprint = hashlib.sha256(b"".join(parts.values())).hexdigest()
    folder = blobs.staging("op")
    for name, data in parts.items():
        (folder / name).write_bytes(data)
    if at == "half converted":
        (folder / MADE).write_bytes(b"hsqs, and then the power went")
    if at == "half converted, known to another project":
        (folder / MADE).write_bytes(b"hsqs, and then the power went")
        await SquashfsConverter().convert(
            folder / ("rootfs" if split else "unified"), blobs.squashfs(fingerprint)
        )
    if at in ("converted", "half moved", "moved"):
        await SquashfsConverter().convert(folder / ("rootfs" if split else "unified"), folder / MADE)
    if at == "half moved":
        name = next(iter(parts))
        (folder / name).rename(blobs.part(fingerprint, name))
    if at == "moved":
        blobs.keep("op", fingerprint, split=split)
        blobs.drop_staging("op")
    given = {"project": "default", "filename": "f", "public": False, "properties": {}, "expected": ""}
    given |= {"aliases": ["tiny"], "fingerprint": fingerprint, "size": 10, "split": split}
    operation = Operation(
        id="op", service="image", member="m", kind=KIND, project="default", state=RUNNING, input=given
    )
    await memory.commit(Txn().put(keys.operation("op"), operation))
    return fingerprint


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    "at",
    [
        "received",
        "half converted",
        "half converted, known to another project",
        "converted",
        "half moved",
        "moved",
    ],
)
async def test_a_killed_import_is_finished_after_a_restart(tmp_path: Path, split: bool, at: str) -> None:
    memory = MemoryStore()
    fingerprint = await killed(tmp_path, memory, split=split, at=at)
    store, blobs = ImageStore(memory), FileBlobs(tmp_path)
    runner = Runner(memory, service="image", member="m")
    imports = Imports(store, blobs, SquashfsConverter(), runner)
    await store.start()
    await runner.start()
    await imports.clean()
    done = await runner.wait("op")
    assert done.state == SUCCEEDED, done.error_message
    for part, data in PARTS[split].items():
        assert blobs.part(fingerprint, part).read_bytes() == data
    subprocess.run(["rdsquashfs", "-d", blobs.squashfs(fingerprint)], check=True, stdout=subprocess.DEVNULL)
    assert blobs.staged() == []
    assert await memory.get(keys.alias("default", "tiny"))
    await store.stop()
