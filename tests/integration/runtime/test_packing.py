"""What guests and archives leave in roots must not keep us packing for ever, nor from copying."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from core.errors import WrongState
from services.runtime.kernel import archives
from services.runtime.storage.tree import copy_tree


async def test_a_file_of_absurd_size_makes_no_squashfs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven exbibytes of nothing pass tar in no time, and tar2sqfs goes through every block of them."""
    monkeypatch.setattr(archives, "_MOST_CPU_S", 1)
    (tmp_path / "root").mkdir()
    with (tmp_path / "root" / "sparse").open("wb") as file:
        file.truncate(1 << 42)
    tree = os.open(tmp_path / "root", os.O_RDONLY | os.O_DIRECTORY)
    target = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
    try:
        async with asyncio.timeout(20):
            with pytest.raises(WrongState, match="too much time or memory"):
                await archives.pack_squashfs(tree, target)
    finally:
        os.close(tree)
        os.close(target)


def test_attributes_that_the_kernel_does_not_show_are_left_out_of_copies(tmp_path: Path) -> None:
    """An import of a volume with a file whose capabilities are none ended in an internal error."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("file")
        info.pax_headers = {"SCHILY.xattr.security.capability": "no", "SCHILY.xattr.user.a": "b"}
        tar.addfile(info)
    squashfs, lower = tmp_path / "squashfs", tmp_path / "lower"
    subprocess.run(["tar2sqfs", "-q", str(squashfs)], input=made.getvalue(), check=True)
    lower.mkdir()
    subprocess.run(["mount", "-o", "loop,ro", str(squashfs), str(lower)], check=True)
    try:
        copy_tree(lower, tmp_path / "copy")
    finally:
        subprocess.run(["umount", str(lower)], check=True)
    assert os.listxattr(tmp_path / "copy" / "file") == ["user.a"]
