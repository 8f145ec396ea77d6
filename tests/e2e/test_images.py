"""Images through the stock client: what goes in comes out byte for byte, under every kind of name."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.e2e.conftest import Podium

YAML = b"architecture: x86_64\ncreation_date: 1700000000\nproperties: {os: Tiny, release: '1'}\n"


def tarball(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(out.getvalue())


def fingerprint_of(podium: Podium, alias: str) -> str:
    return str(json.loads(podium.lxc("query", f"/1.0/images/aliases/{alias.replace('/', '%2F')}"))["target"])


def test_a_unified_image_goes_through_the_client_and_comes_back(podium: Podium, tmp_path: Path) -> None:
    """Properties and visibility of the command line are kept; each name finds it; the file is the same."""
    sent = tmp_path / "tiny.tar.gz"
    sent.write_bytes(tarball({"metadata.yaml": YAML, "rootfs/unified": b"1"}))
    podium.lxc("image", "import", str(sent), "release=2", "note=a b&c=d", "--public", "--alias", "tiny/one")
    fingerprint = fingerprint_of(podium, "tiny/one")

    for name in ("tiny/one", fingerprint, fingerprint[:12]):
        shown = podium.lxc("image", "show", name)
        assert "public: true" in shown and 'release: "2"' in shown and "note: a b&c=d" in shown
        assert "Last used: never" in podium.lxc("image", "info", name)
        (tmp_path / "out").mkdir(exist_ok=True)
        podium.lxc("image", "export", name, f"{tmp_path}/out/")
        assert (tmp_path / "out" / f"{fingerprint}.tar.gz").read_bytes() == sent.read_bytes()
    podium.lxc("image", "edit", fingerprint[:12], input=b"public: false\nproperties: {os: Other}\n")
    assert "os: Other" in podium.lxc("image", "show", "tiny/one")
    podium.lxc("image", "delete", fingerprint[:12])
    assert "tiny/one" not in podium.lxc("image", "alias", "list")


def test_a_split_image_comes_back_in_its_two_parts(podium: Podium, tmp_path: Path) -> None:
    meta, root = tmp_path / "meta.tar.gz", tmp_path / "root.tar.gz"
    meta.write_bytes(tarball({"metadata.yaml": YAML}))
    root.write_bytes(tarball({"etc/split": b"1"}))
    podium.lxc("image", "import", str(meta), str(root), "--alias", "tiny-split")
    (tmp_path / "out").mkdir()
    podium.lxc("image", "export", "tiny-split", f"{tmp_path}/out/")

    came = {path.name.split("-")[0]: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    fingerprint = fingerprint_of(podium, "tiny-split")
    assert came == {"meta": meta.read_bytes(), f"{fingerprint}.tar.gz": root.read_bytes()}
    podium.lxc("image", "delete", "tiny-split")


def test_an_empty_list_of_profiles_is_none_and_no_list_the_default(podium: Podium, tmp_path: Path) -> None:
    """As LXD has it, by a form and by the API; what is left out of a PATCH stays."""
    sent = tmp_path / "tiny.tar.gz"
    sent.write_bytes(tarball({"metadata.yaml": YAML, "rootfs/profiles": b"1"}))
    podium.lxc("image", "import", str(sent), "--alias", "tiny-profiles")
    path = f"/1.0/images/{fingerprint_of(podium, 'tiny-profiles')}"

    podium.lxc("image", "edit", "tiny-profiles", input=b"profiles: []\n")
    podium.lxc("query", "-X", "PATCH", "-d", '{"public": true}', path)
    changed = json.loads(podium.lxc("query", path))
    podium.lxc("query", "-X", "PUT", "-d", "{}", path)
    replaced = json.loads(podium.lxc("query", path))

    assert (changed["profiles"], changed["public"]) == ([], True)
    assert (replaced["profiles"], replaced["public"]) == (["default"], False)
    podium.lxc("image", "delete", "tiny-profiles")


def test_the_use_of_an_image_is_seen_without_being_told(podium: Podium, tmp_path: Path) -> None:
    sent = tmp_path / "tiny.tar.gz"
    sent.write_bytes(tarball({"metadata.yaml": YAML, "rootfs/used": b"1"}))
    podium.lxc("image", "import", str(sent), "--alias", "tiny-used")
    podium.lxc("init", "tiny-used", "e2e-used")
    assert "Last used: never" not in podium.lxc("image", "info", "tiny-used")
    podium.lxc("delete", "e2e-used")
    podium.lxc("image", "delete", "tiny-used")


@pytest.mark.parametrize("verb", [("launch",), ("init",), ("image", "info"), ("image", "delete")])
@pytest.mark.parametrize("name", ["nosuch", "no/such", "feed", "images of mine"])
def test_an_unknown_image_is_named_in_the_answer(podium: Podium, verb: tuple[str, ...], name: str) -> None:
    done = podium.run(*verb, name)
    assert done.returncode
    assert "Image not found" in done.stderr.decode() and name in done.stderr.decode()


def test_what_is_no_image_is_refused_by_name_of_the_fault(podium: Podium, tmp_path: Path) -> None:
    """The client prints the operation's sentence; nothing of the upload is kept."""
    wrong = tmp_path / "wrong"
    for content, why in ((b"MZ" + bytes(900), "neither a tarball"), (tarball({"x": b"y"}), "metadata.yaml")):
        wrong.write_bytes(content)
        assert why in podium.run("image", "import", str(wrong)).stderr.decode()
    assert not list((podium.state_dir / "images" / "staging").iterdir())
