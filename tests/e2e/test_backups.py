"""Backups of instances, through the stock client."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import yaml

from tests.e2e.conftest import Podium
from tests.faults.harness import wait_for

ROOT = Path(__file__).parents[2]


def test_an_export_holds_what_lxd_s_hold(podium: Podium, tmp_path: Path) -> None:
    """index.yaml first, then snapshots, then the instance; roots with the ids that the guest sees."""
    podium.lxc("init", "debian/12", "kept", "-c", "user.note=mine")
    podium.lxc("file", "push", "-", "kept/root/old", "--uid", "7", input=b"1")
    podium.lxc("snapshot", "kept", "s1")
    podium.lxc("file", "push", "-", "kept/root/new", input=b"2")

    podium.lxc("export", "kept", f"{tmp_path}/kept.tar.gz")

    with tarfile.open(tmp_path / "kept.tar.gz") as tar:
        names = tar.getnames()
        index = yaml.safe_load(tar.extractfile("backup/index.yaml") or b"")
        old = tar.getmember("backup/snapshots/s1/rootfs/root/old")
    assert names[0] == "backup/index.yaml"
    assert "backup/snapshots/s1/rootfs/root/new" not in names
    assert {"backup/container/rootfs/root/new", "backup/container/backup.yaml"} <= set(names)
    assert (old.uid, index["name"], index["snapshots"]) == (7, "kept", ["s1"])
    assert index["config"]["container"]["config"]["user.note"] == "mine"
    assert json.loads(podium.lxc("query", "/1.0/instances/kept/backups")) == []
    podium.lxc("publish", "kept/s1", "--alias", "of-snapshot")
    podium.lxc("image", "delete", "of-snapshot")
    podium.lxc("delete", "kept")


def test_backups_are_kept_renamed_and_expire(podium: Podium) -> None:
    """The API keeps archives on the server; they go with their instance."""
    podium.lxc("launch", "debian/12", "kept")
    path = "/1.0/instances/kept/backups"
    body = {"instance_only": True, "compression_algorithm": "zstd", "expires_at": "2040-01-01T00:00:00Z"}
    podium.lxc("query", "-X", "POST", "--wait", "-d", json.dumps(body), path)

    podium.lxc("query", "-X", "POST", "--wait", "-d", '{"name": "mine"}', f"{path}/backup0")

    shown = json.loads(podium.lxc("query", f"{path}?recursion=1"))
    assert [(b["name"], b["instance_only"], b["expires_at"][:4]) for b in shown] == [("mine", True, "2040")]
    assert "mine" in podium.lxc("info", "kept")
    folder = podium.state_dir / "backups"
    assert len(list(folder.iterdir())) == 1
    for verb, url, data, said in (
        ("POST", path, {"name": "mine"}, 'Create backup: Backup "kept/mine" already exists'),
        ("POST", path, {"name": "a/b"}, "Backup names may not contain slashes"),
        ("POST", path, {"compression_algorithm": "sh -c id"}, "Invalid compression algorithm"),
        ("GET", f"{path}/no", {}, "Load backup from database: Instance backup not found"),
        ("GET", f"{path}/..%2fmine/export", {}, "not found"),
    ):
        done = podium.run("query", "-X", verb, "--wait", "-d", json.dumps(data), url)
        assert said in done.stderr.decode(), (url, done)
    podium.lxc("delete", "-f", "kept")
    wait_for(lambda: not list(folder.iterdir()), 5, "the file to go")


def test_podium_s_own_command_publishes_exports_and_imports(podium: Podium, tmp_path: Path) -> None:
    """The verbs and flags of the stock client; a file is whole or absent."""

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        environment = {**podium.environment, "PODIUM_CONF": str(tmp_path)}
        argv = [str(ROOT / "bin" / "podium"), *args]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environment, check=False)

    podium.lxc("launch", "debian/12", "own")
    refused = run("publish", "own")
    assert refused.returncode == 1
    assert "Try: podium publish --force own" in refused.stderr
    assert "fingerprint" in run("publish", "own", "--force", "--alias", "of-own", "a=b").stdout
    file = tmp_path / "own.tar.zst"
    assert run("export", "own", str(file), "--compression", "zstd", "--instance-only").returncode == 0
    assert run("import", str(file), "own2", "-s", "default").returncode == 0
    assert podium.lxc("list", "-f", "csv", "-c", "ns", "own2") == "own2,STOPPED\n"
    assert podium.lxc("file", "pull", "own2/etc/hostname", "-") == "own2\n"
    assert [path.name for path in tmp_path.iterdir() if "own" in path.name] == ["own.tar.zst"]
    podium.lxc("delete", "-f", "own", "own2")
    podium.lxc("image", "delete", "of-own")


def test_projects_have_backups_and_images_of_their_own_or_shared(podium: Podium, tmp_path: Path) -> None:
    """The client listens in the project it works in, and takes the last word of a URL for a name."""
    podium.lxc("project", "create", "sharing", "-c", "features.images=false", "-c", "features.profiles=false")
    podium.lxc("init", "debian/12", "of", "--project", "sharing")

    podium.lxc("publish", "of", "--alias", "shared", "x=y", "--project", "sharing", timeout=60)
    podium.lxc("export", "of", f"{tmp_path}/of.tar.gz", "--project", "sharing", timeout=60)
    podium.lxc("import", f"{tmp_path}/of.tar.gz", "of2", "--project", "sharing", timeout=60)

    assert "shared" in podium.lxc("image", "list", "-f", "csv", "-c", "l")
    podium.lxc("delete", "of", "of2", "--project", "sharing")
    podium.lxc("image", "delete", "shared")
    podium.lxc("project", "delete", "sharing")
