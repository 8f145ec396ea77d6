"""What lies on the host without a record is taken away at the next start; what is not ours stays."""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from pathlib import Path

from tests.faults.harness import Victim, wait_for, without
from tests.faults.stories import settled

PREFIX = "fault-stray-"


def mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(f"{folder}/")]


def test_leftovers_of_instances_without_a_record_are_taken_away(victim: Victim, no_leaks: None) -> None:
    """A restored etcd, or a purge cut short: nobody will ever ask for these again."""
    id, other = str(uuid.uuid4()), "not-ours"
    state, volumes = victim.state_dir, victim.state_dir / "pools" / "default" / "containers"
    root = state / "instances" / id / "rootfs"
    cgroup = Path("/sys/fs/cgroup/freezer/podium") / id
    with without(victim, "runtime"):
        root.mkdir(parents=True)
        # Twice: an interrupted start may have been tried again.
        for _ in range(2):
            subprocess.run(["mount", "-t", "tmpfs", "none", root], check=True)
        (root / "file").write_text("x")
        subprocess.run(["btrfs", "subvolume", "create", volumes / id], check=True, capture_output=True)
        (volumes / other).mkdir()
        with contextlib.suppress(FileNotFoundError):
            cgroup.mkdir()
    try:
        victim.wait_until_it_answers()
        wait_for(lambda: not root.parent.exists(), 20, "the end of the folder")
        wait_for(lambda: not (volumes / id).exists(), 20, "the end of the volume")
        assert mounts_below(state / "instances" / id) == []
        assert not cgroup.exists()
        assert (volumes / other).is_dir(), "what has another name is somebody's own"
    finally:
        (volumes / other).rmdir()


def test_an_image_goes_when_its_last_instance_does(victim: Victim, no_leaks: None) -> None:
    """Deleting the image of a running instance takes the name away at once, the bytes with its last user."""
    source = victim.side.request("GET", f"/1.0/images/aliases/{victim.image.replace('/', '%2F')}")
    fingerprint = source["metadata"]["target"]
    victim.side.lxc("launch", victim.image, f"{PREFIX}a")
    blob = victim.state_dir / "images" / "squashfs" / f"{fingerprint}.squashfs"
    exported = victim.config_dir / "image"
    victim.side.lxc("image", "export", fingerprint, str(exported))
    try:
        victim.side.lxc("image", "delete", fingerprint)
        assert victim.side.request("GET", f"/1.0/images/{fingerprint}")["error_code"] == 404
        assert blob.exists()
        victim.kill("runtime", "image")
        victim.wait_until_it_answers()
        victim.side.lxc("restart", "--force", f"{PREFIX}a")
        assert victim.side.lxc("exec", f"{PREFIX}a", "--", "echo", "alive") == "alive\n"
        victim.side.lxc("delete", "--force", f"{PREFIX}a")
        victim.kill("image")
        wait_for(lambda: not blob.exists(), 30, "the end of the image's files")
        assert not (victim.state_dir / "mounted" / fingerprint).exists()
    finally:
        settled(victim)
        victim.side.delete_all(PREFIX)
        file = next(victim.config_dir.glob("image*"))
        victim.side.lxc("image", "import", str(file), "--alias", victim.image)
