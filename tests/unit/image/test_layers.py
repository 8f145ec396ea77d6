"""Layers laid upon each other: each rule by itself."""

from __future__ import annotations

import pytest

from core.errors import Invalid
from services.image.domain.layers import FILE, FOLDER, HARDLINK, SYMLINK, Entry, Node, Tree


def file(path: str, size: int = 1) -> Entry:
    return Entry(path, Node(FILE, 0o644, size=size))


def folder(path: str, mode: int = 0o755) -> Entry:
    return Entry(path, Node(FOLDER, mode, children={}))


def link(path: str, target: str) -> Entry:
    return Entry(path, Node(SYMLINK, 0o777, link=target))


def hard(path: str, target: str) -> Entry:
    return Entry(path, Node(HARDLINK, link=target))


def _laid(*layers: list[Entry]) -> dict[str, Node]:
    tree = Tree()
    for layer in layers:
        tree.lay(layer)
    return {path: node for path, node, _ in tree.entries() if path}


@pytest.mark.parametrize(
    ("layers", "paths"),
    [
        ([[file("a")], [file(".wh.a")]], set()),
        ([[file("a"), file(".wh.a")]], {"a"}),
        ([[file("d/a"), file("d/b")], [file("d/.wh..wh..opq"), file("d/c")]], {"d", "d/c"}),
        ([[file("d/a")], [file("d/c"), file("d/.wh..wh..opq")]], {"d", "d/c"}),
        ([[file("d/a")], [file(".wh.d"), file("d/b")]], {"d", "d/b"}),
        ([[file("a")], [file("a/")]], {"a"}),
        ([[folder("d"), file("d/a")], [file("d")]], {"d"}),
        ([[file("d")], [folder("d"), file("d/a")]], {"d", "d/a"}),
        (
            [[folder("usr/lib"), link("lib", "usr/lib")], [file("lib/x")]],
            {"usr", "usr/lib", "lib", "usr/lib/x"},
        ),
        ([[link("up", "../../.."), file("up/x")]], {"up", "x"}),
        ([[link("l", "/a/b"), file("l/x")]], {"l", "a", "a/b", "a/b/x"}),
        ([[file("./a"), file("b/./c")]], {"a", "b", "b/c"}),
        ([[file("nowhere/.wh.a"), file("nowhere/.wh..wh..opq")]], set()),
        ([[file("d/a")], [file("d/.wh..wh.plnk")]], {"d", "d/a"}),
    ],
)
def test_what_is_left(layers: list[list[Entry]], paths: set[str]) -> None:
    assert set(_laid(*layers)) == paths


def test_a_folder_that_comes_again_keeps_what_is_in_it() -> None:
    found = _laid([folder("d"), file("d/a")], [folder("d", 0o700)])

    assert found["d"].mode == 0o700 and "d/a" in found


def test_a_hard_link_survives_what_it_was_made_to() -> None:
    """Its file is the same one; that the other name goes takes nothing from it."""
    found = _laid([file("a", 7)], [hard("b", "a")], [file(".wh.a")])

    assert set(found) == {"b"} and found["b"].size == 7


def test_a_replaced_file_is_not_replaced_under_its_other_name() -> None:
    found = _laid([file("a", 7), hard("b", "a")], [file("a", 9)])

    assert (found["a"].size, found["b"].size) == (9, 7)


@pytest.mark.parametrize(
    "layer",
    [
        [hard("a", "b")],
        [hard("a", "a")],
        [folder("d"), hard("a", "d")],
        [link("a", "b"), link("b", "a"), file("a/x")],
        [file("a"), file("a/b")],
        [file(".wh...")],
        [file("a/../b")],
    ],
)
def test_what_cannot_be_meant_is_refused(layer: list[Entry]) -> None:
    with pytest.raises(Invalid):
        _laid(layer)


def test_the_number_of_entries_is_bounded_whatever_makes_them() -> None:
    tree = Tree(most=100)

    with pytest.raises(Invalid, match="more than 100"):
        tree.lay([file("/".join("d" * 60)), file("e" + "/e" * 60)])


def test_a_path_that_links_make_too_long_is_refused() -> None:
    deep = "/".join(["d" * 200] * 15)
    tree = Tree()
    tree.lay([folder(deep), link("l", deep), file(f"l/{deep}/x")])

    with pytest.raises(Invalid, match="letters"):
        list(tree.entries())
