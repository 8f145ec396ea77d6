"""Templates as they lie in images: read by name from a squashfs of ours, whatever a stranger made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.image.blobs.files import FileBlobs
from services.image.formats.squashfs import SquashfsConverter
from services.image.usecases.about import Abouts
from tests.integration.image.harness import YAML, Content, tarball

FINGERPRINT = "ab" * 32
TEMPLATES = YAML + b"templates: {/etc/hostname: {when: [create], template: a.tpl}}\n"


async def about_of(tmp_path: Path, entries: dict[str, Content]) -> Abouts:
    blobs, converter = FileBlobs(tmp_path / "images"), SquashfsConverter()
    (tmp_path / "image.tar").write_bytes(tarball(entries))
    blobs.squashfs(FINGERPRINT).parent.mkdir(parents=True, exist_ok=True)
    await converter.convert(tmp_path / "image.tar", blobs.squashfs(FINGERPRINT))
    return Abouts(blobs, converter)


async def test_templates_come_with_the_image(tmp_path: Path) -> None:
    """Those that metadata.yaml names, and no other file of the folder."""
    entries: dict[str, Content] = {
        "metadata.yaml": TEMPLATES,
        "templates": None,
        "templates/a.tpl": b"{{ instance.name }}",
        "templates/other": b"x",
        "rootfs": None,
    }
    about = await (await about_of(tmp_path, entries)).of(FINGERPRINT, "")

    assert about.templates == {"a.tpl": b"{{ instance.name }}"}
    assert about.metadata["templates"]["/etc/hostname"]["when"] == ["create"]


@pytest.mark.parametrize(
    "entries",
    [
        {"templates": None, "templates/a.tpl": "/etc/passwd"},
        {"templates": None, "templates/a.tpl": "../metadata.yaml"},
        {"templates": "/etc"},
        {"templates": None, "templates/a.tpl": None},
        {"templates": None},
        {"templates": None, "templates/a.tpl": b"x" * (300 << 10)},
    ],
    ids=["link", "link inside", "linked folder", "folder", "missing", "too large"],
)
async def test_what_is_no_template_is_none(tmp_path: Path, entries: dict[str, Content]) -> None:
    """It is missed by name when it is to be rendered; nothing else is read in its place."""
    whole = {"metadata.yaml": TEMPLATES, "rootfs": None, **entries}

    about = await (await about_of(tmp_path, whole)).of(FINGERPRINT, "")

    assert about.templates == {}
    assert "/etc/hostname" in about.metadata["templates"]
