"""What an archive must look like to be an image, beyond that its files can be read. Pure.

Each file that the server itself reads must be one of its own: with links, pipes and devices in their
place nobody could say whose bytes are read. What lies below a root file system may be anything.
"""

from __future__ import annotations

from enum import StrEnum

from services.image.formats import scanner
from services.image.formats.tarheaders import bad
from services.image.formats.tree import Folder, Node, Tree


class Form(StrEnum):
    """What is looked at: all of an image, its metadata alone, or no more than that it can be read."""

    UNIFIED = "unified"
    METADATA = "metadata"
    ANY = "any"


def form_of(part: str) -> Form:
    """Return what a part of an image has to look like."""
    return Form.ANY if part == "rootfs" else Form(part)


def check_form(tree: Tree, form: Form) -> None:
    """Raises: Invalid. What is missing is not missed here."""
    if form is Form.ANY:
        return
    top = tree.root.children
    if node := top.get(b"metadata.yaml"):
        _check_file("metadata.yaml", node)
    templates = top.get(b"templates")
    if templates is None:
        return
    if not isinstance(templates, Folder):
        raise bad("templates is no folder")
    for name, node in templates.children.items():
        if not isinstance(node, Folder):
            _check_file(f"templates/{name[:80].decode('utf-8', 'replace')}", node)


def _check_file(path: str, node: Node) -> None:
    if node.kind != scanner.FILE:
        raise bad(f"{path} is not a regular file")
    if node.links > 1:
        raise bad(f"{path} is a hard link; it must be a file of its own")
