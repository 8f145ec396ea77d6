"""What a server reads of an image is a regular file of its own, whatever stands in its place."""

from __future__ import annotations

import io
import tarfile

import pytest

from core.errors import Invalid
from services.image.formats.form import Form, check_form
from services.image.formats.scanner import Limits, TarScanner
from services.image.formats.tree import Tree

_OTHERS = {
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "pipe": tarfile.FIFOTYPE,
    "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
}
_FOLDER, _FILE = tarfile.DIRTYPE, tarfile.REGTYPE


def _tree(*entries: tuple[str, bytes]) -> Tree:
    """Links of either kind lead to the file "rootfs/other"."""
    out, tree = io.BytesIO(), Tree()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in (("rootfs", _FOLDER), ("rootfs/other", _FILE), *entries):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "rootfs/other"
            tar.addfile(info, io.BytesIO())
    scanner = TarScanner(Limits(), lambda: 1 << 20, tree.add)
    scanner.feed(out.getvalue())
    scanner.finish()
    return tree


@pytest.mark.parametrize("kind", [*_OTHERS.values(), _FOLDER], ids=[*_OTHERS, "folder"])
@pytest.mark.parametrize("form", [Form.UNIFIED, Form.METADATA])
def test_metadata_that_is_no_file_is_refused(kind: bytes, form: Form) -> None:
    with pytest.raises(Invalid, match=r"metadata\.yaml"):
        check_form(_tree(("metadata.yaml", kind)), form)


@pytest.mark.parametrize("kind", [*_OTHERS.values(), _FILE], ids=[*_OTHERS, "file"])
def test_templates_that_are_no_folder_are_refused(kind: bytes) -> None:
    """Also where metadata.yaml names none: it may do so later, by `config metadata edit`."""
    with pytest.raises(Invalid, match="templates is no folder"):
        check_form(_tree(("templates", kind)), Form.UNIFIED)


@pytest.mark.parametrize("kind", _OTHERS.values(), ids=_OTHERS)
def test_a_template_that_is_no_file_is_refused(kind: bytes) -> None:
    with pytest.raises(Invalid, match=r"templates/hosts\.tpl"):
        check_form(_tree(("templates", _FOLDER), ("templates/hosts.tpl", kind)), Form.UNIFIED)


def test_a_file_that_others_link_to_is_refused() -> None:
    """Which of both names came first says nothing of whose bytes they are."""
    tree = _tree(("metadata.yaml", _FILE), ("rootfs/other", tarfile.REGTYPE))
    tree.root.children[b"metadata.yaml"].links += 1
    with pytest.raises(Invalid, match="hard link"):
        check_form(tree, Form.METADATA)


@pytest.mark.parametrize("kind", _OTHERS.values(), ids=_OTHERS)
def test_a_root_file_system_may_have_such_names_itself(kind: bytes) -> None:
    check_form(_tree(("metadata.yaml", kind), ("templates", kind)), Form.ANY)


def test_what_images_look_like_is_taken() -> None:
    entries = ("metadata.yaml", _FILE), ("templates", _FOLDER), ("templates/hosts.tpl", _FILE)
    check_form(_tree(*entries, ("rootfs/link", tarfile.LNKTYPE)), Form.UNIFIED)
