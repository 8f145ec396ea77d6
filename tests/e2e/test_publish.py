"""Images made of instances, through the stock client."""

from __future__ import annotations

import tarfile
from pathlib import Path

from tests.e2e.conftest import Podium


def test_a_published_instance_can_be_launched_and_exported(podium: Podium, tmp_path: Path) -> None:
    """What the guest changed is in the image, its owner and mode too; the base's properties are kept."""
    podium.lxc("init", "debian/12", "pub")
    podium.lxc("file", "push", "-", "pub/root/mine", "--uid", "33", "--mode", "0640", input=b"of the guest")
    podium.lxc("file", "delete", "pub/etc/issue")

    podium.lxc("publish", "pub", "--alias", "published")

    again = podium.run("publish", "pub")
    assert "The image already exists: " in again.stderr.decode()
    assert "os: Debian" in podium.lxc("image", "show", "published")
    podium.lxc("launch", "published", "pub2")
    said = podium.lxc(
        "exec", "pub2", "--", "sh", "-c", "cat /root/mine; stat -c ' %u %a' /root/mine; ls /etc"
    )
    assert said.startswith("of the guest 33 640\n")
    assert "issue\n" not in said
    podium.lxc("image", "export", "published", f"{tmp_path}/")
    assert {path.suffix for path in tmp_path.iterdir()} == {".tar", ".squashfs"}
    again = podium.run("publish", "pub2")
    assert "--force to have it stopped" in again.stderr.decode()
    podium.lxc("delete", "-f", "pub", "pub2")
    podium.lxc("image", "delete", "published")


def test_a_compression_gives_a_tarball_with_own_properties(podium: Podium, tmp_path: Path) -> None:
    """One file, as LXD makes it: metadata.yaml and rootfs, readable by any tar."""
    podium.lxc("init", "debian/12", "pub")
    podium.lxc("publish", "pub", "--alias", "packed", "--compression", "zstd -1", "--public", "one=1")

    shown = podium.lxc("image", "show", "packed")
    assert 'properties:\n  one: "1"\npublic: true' in shown
    podium.lxc("image", "export", "packed", f"{tmp_path}/image")
    assert (tmp_path / "image.tar.zst").exists()
    podium.lxc("publish", "pub", "--alias", "plain", "--compression", "none")
    podium.lxc("image", "export", "plain", f"{tmp_path}/plain")
    with tarfile.open(tmp_path / "plain.tar") as tar:
        names = tar.getnames()
    assert names[:2] == ["metadata.yaml", "rootfs"]
    podium.lxc("delete", "pub")
    podium.lxc("image", "delete", "packed", "plain")


def test_what_cannot_be_published_is_refused_in_lxd_s_words(podium: Podium) -> None:
    """A wrong name or compression never begins an operation."""
    podium.lxc("init", "debian/12", "pub")
    for args, said in (
        (("nope",), "Instance not found"),
        (("pub", "--compression", "sh -c id"), 'Invalid compression algorithm "sh -c id"'),
    ):
        done = podium.run("publish", *args)
        assert done.returncode == 1
        assert said in done.stderr.decode()
    podium.lxc("delete", "pub")
