"""Recipes as people write them."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from core.errors import Invalid
from services.image.domain import recipetext
from services.image.sources.recipe import Recipe, RecipeFile

WHOLE = b"""
distribution: ubuntu
release: noble
variant: standard
packages: [cron, vim-tiny]
files:
  - {path: /etc/motd, content: "hello\\n"}
  - path: /usr/local/bin/x
    mode: 0755
    content: |
      #!/bin/sh
"""


def test_a_recipe_says_all_that_is_built() -> None:
    files = (RecipeFile("etc/motd", "hello\n"), RecipeFile("usr/local/bin/x", "#!/bin/sh\n", 0o755))
    assert recipetext.parse(WHOLE) == Recipe("noble", ("cron", "vim-tiny"), "ubuntu", "standard", files)
    assert recipetext.parse(b"release: 12") == Recipe("bookworm")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "a recipe is a map"),
        (b"- a", "a recipe is a map"),
        (b"release: [1]", "release must be a text"),
        (b"variant: default", "release must be a text"),
        (b"release: 12\ncolour: red", "no field 'colour'"),
        (b"release: 12\nvariant: tiny", "no variant"),
        (b"release: 12\ndistribution: arch", "no recipe for 'arch'"),
        (b"release: 12\npackages: cron", "packages must be a list"),
        (b"release: 12\npackages: [[a]]", "packages must be a text"),
        (b"release: 12\npackages: ['a b']", "no release or package"),
        (b"release: '../x'", "release or package"),
        (b"release: 12\nfiles: [x]", "a file is a map"),
        (b"release: 12\nfiles: [{content: x}]", "path must be a text"),
        (b"release: 12\nfiles: [{path: etc/x}]", "no absolute path"),
        (b"release: 12\nfiles: [{path: /etc/../x}]", "no absolute path"),
        (b"release: 12\nfiles: [{path: /etc/}]", "no absolute path"),
        (b"release: 12\nfiles: [{path: /x, mode: '9999'}]", "mode"),
        (b"release: 12\nfiles: [{path: /x, owner: me}]", "no field 'owner'"),
        (b"release: &a 12\npackages: [*a]", "aliases are not allowed"),
        (b"release: " + b"[" * 100, "complex|YAML"),
        (b"release: '12'\n#" + b"x" * (1 << 20), "larger"),
        (b"\xff\x00", "YAML"),
    ],
)
def test_what_is_none_is_refused_with_its_field(text: bytes, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        recipetext.parse(text)


def tar(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("size", [0, 1, 512, 5000])
def test_files_come_behind_those_of_the_build(tmp_path: Path, size: int) -> None:
    """Zeros at the end of the last file are none of the archive's."""
    (tmp_path / "more").write_bytes(tar(b=b"new"))
    argv = [sys.executable, "-m", "services.image.sources.appender", str(tmp_path / "more")]
    done = subprocess.run(argv, input=tar(b=b"old", z=bytes(size)), capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert [(m.name, m.size) for m in archive] == [("b", 3), ("z", size), ("b", 3)]
