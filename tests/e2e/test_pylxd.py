"""Every manager of pylxd, LXD's own client for Python, against a running Podium."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pylxd
import pytest
from pylxd.client import EventType
from pylxd.exceptions import LXDAPIException, NotFound

from services.cluster.authority import Wanted, issue
from tests.e2e.conftest import Podium
from tests.subnets import net4

# pylxd says so of every key that is newer than its models.
pytestmark = pytest.mark.filterwarnings("ignore:Attempted to set unknown attribute")
IMAGE = {"type": "image", "alias": "debian/12"}


@pytest.fixture(scope="module")
def client(podium: Podium) -> Any:
    return pylxd.Client(endpoint=str(podium.state_dir / "unix.socket"))


@pytest.fixture(scope="module")
def web(client: Any) -> Iterator[Any]:
    instance = client.instances.create({"name": "px-web", "source": IMAGE}, wait=True)
    instance.start(wait=True)
    yield instance
    client.instances.get("px-web").stop(wait=True, force=True)
    client.instances.get("px-web").delete(wait=True)


def test_the_server_tells_of_itself(client: Any) -> None:
    assert client.trusted and client.has_api_extension("etag")
    assert client.resources["cpu"]["total"] > 0
    assert client.cluster.get().enabled is False


def test_an_instance_is_changed_and_started_and_renamed(client: Any) -> None:
    instance = client.instances.create({"name": "px1", "source": IMAGE, "config": {"user.a": "1"}}, wait=True)
    assert client.instances.exists("px1") and not client.instances.exists("px-none")
    assert "px1" in [i.name for i in client.instances.all()]
    assert client.containers.get("px1").name == "px1"
    instance.config["user.b"], instance.description = "2", "hello"
    instance.save(wait=True)
    again = client.instances.get("px1")
    assert (again.config["user.a"], again.config["user.b"], again.description) == ("1", "2", "hello")

    again.start(wait=True)
    assert again.state().status == "Running" and "lo" in again.state().network
    again.freeze(wait=True)
    assert client.instances.get("px1").status == "Frozen"
    again.unfreeze(wait=True)
    again.restart(wait=True)
    again.stop(wait=True, force=True)
    again.rename("px2", wait=True)
    client.instances.get("px2").delete(wait=True)
    assert not client.instances.exists("px2")


def test_instances_come_with_what_was_asked_for(client: Any, web: Any) -> None:
    for depth, fields in ((0, None), (1, None), (2, None), (2, ["state.network"]), (2, [])):
        assert "px-web" in [i.name for i in client.instances.all(recursion=depth, fields=fields)]
    full = next(i for i in client.instances.all(recursion=2) if i.name == "px-web")
    assert full.status == "Running" and full.expanded_devices["root"]
    unnamed = client.instances.create({"source": IMAGE}, wait=True)
    unnamed.sync()
    assert unnamed.architecture and client.containers.exists(unnamed.name)
    unnamed.delete(wait=True)


def test_a_model_is_put_patched_and_rolled_back(client: Any, web: Any) -> None:
    instance = client.instances.get("px-web")
    instance.description = "mine"
    assert instance.dirty
    instance.rollback()
    assert not instance.dirty
    instance.raw_patch({"config": {"user.raw": "1"}}, wait=True)
    instance.patch({"description": "patched"}, wait=True)
    body = instance.marshall()
    instance.put({**body, "devices": {"n": {"type": "none"}}}, wait=True)
    instance.raw_put({**body, "description": "put"}, wait=True)
    found = client.instances.get("px-web")
    assert (found.description, found.devices, found.config["user.raw"]) == ("put", {}, "1")
    snapshot = found.snapshots.create("s", wait=True) or found.snapshots.get("s")
    snapshot.put({"expires_at": "2037-01-01T00:00:00Z"}, wait=True)
    told = client.api.instances["px-web"].snapshots["s"].get().json()["metadata"]
    assert told["expires_at"] == "2037-01-01T00:00:00Z"
    snapshot.delete(wait=True)


def test_an_instance_goes_to_another_server(
    client: Any, podium: Podium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a project of this one by its address: pylxd speaks of servers only."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    issued = issue(Wanted("px-there"))
    paths = (tmp_path / "crt", tmp_path / "key")
    for path, pem in zip(paths, (issued.certificate, issued.key), strict=True):
        path.write_bytes(pem)
    address = {"endpoint": f"https://{podium.environment['PODIUM_HTTPS']}", "verify": False}
    trusted = client.certificates.create("", issued.certificate, name="px-there")
    here = pylxd.Client(cert=tuple(map(str, paths)), **address)
    client.projects.create("px-there", config={"features.images": "false", "features.profiles": "false"})
    there = pylxd.Client(cert=tuple(map(str, paths)), project="px-there", **address)

    source = here.instances.create({"name": "px8", "source": IMAGE, "config": {"user.m": "1"}}, wait=True)
    source.migrate(there, wait=True)
    moved = there.instances.get("px8")
    assert moved.config["user.m"] == "1"

    moved.delete(wait=True)
    client.projects.get("px-there").delete()
    trusted.name = "renamed"
    trusted.save(wait=True)
    trusted.patch({"restricted": True, "projects": ["default"]}, wait=True)
    assert client.certificates.get(trusted.fingerprint).name == "renamed"
    trusted.delete()


def test_events_come_by_websocket(client: Any) -> None:
    listener = client.events(event_types={EventType.Lifecycle})
    listener.connect()
    listening = threading.Thread(target=listener.run, daemon=True)
    listening.start()
    client.profiles.create("pxe").delete()
    for _ in range(50):
        if any(m["metadata"]["action"] == "profile-deleted" for m in listener.messages):
            break
        listening.join(0.1)
    assert [m["metadata"]["action"] for m in listener.messages] == ["profile-created", "profile-deleted"]
    listener.close()


def test_commands_have_streams_environment_and_user(web: Any) -> None:
    said = web.execute(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (said.exit_code, said.stdout, said.stderr) == (3, "out\n", "err\n")
    assert web.execute(["cat"], stdin_payload="hi").stdout == "hi"
    assert "A=b" in web.execute(["env"], environment={"A": "b"}).stdout
    assert web.execute(["pwd"], cwd="/tmp").stdout == "/tmp\n"
    assert web.execute(["id", "-u"], user=1000, group=1000).stdout == "1000\n"
    assert set(web.raw_interactive_execute(["true"])) == {"ws", "control"}


def test_files_go_both_ways_with_folders(web: Any, tmp_path: Path) -> None:
    web.files.put("/root/x", b"abc", mode=0o600, uid=1, gid=2)
    assert web.files.get("/root/x") == b"abc"
    assert web.execute(["stat", "-c", "%a %u %g", "/root/x"]).stdout == "600 1 2\n"
    web.files.mk_dir("/root/d", mode=0o700)
    web.files.put("/root/d/y", "t")
    web.files.recursive_get("/root/d", str(tmp_path / "d"))
    web.files.recursive_put(str(tmp_path / "d"), "/root/e")
    assert web.files.get("/root/e/y") == b"t"
    assert web.files.delete_available()
    web.files.delete("/root/x")
    with pytest.raises(NotFound):
        web.files.get("/root/x")


def test_snapshots_are_taken_renamed_restored_and_published(client: Any) -> None:
    instance = client.instances.create({"name": "px3", "source": IMAGE}, wait=True)
    instance.snapshots.create("s1", wait=True)
    instance.snapshots.create("s2", stateful=False, wait=True)
    assert [s.name for s in instance.snapshots.all()] == ["s1", "s2"]
    instance.snapshots.get("s1").rename("s3", wait=True)
    instance.snapshots.get("s3").delete(wait=True)
    instance.files.put("/root/mark", "x")
    instance.restore_snapshot("s2", wait=True)
    with pytest.raises(NotFound):
        instance.files.get("/root/mark")
    snapshot = instance.snapshots.get("s2")
    snapshot.restore(wait=True)
    snapshot.publish(wait=True).delete(wait=True)
    copy = {"name": "px4", "source": {"type": "copy", "source": "px3/s2"}}
    client.instances.create(copy, wait=True).delete(wait=True)
    client.instances.get("px3").delete(wait=True)


def test_an_instance_is_published_under_a_name(client: Any) -> None:
    instance = client.instances.create({"name": "px5", "source": IMAGE}, wait=True)
    image = instance.publish(wait=True)
    image.add_alias("px-alias", "mine")
    found = client.images.get_by_alias("px-alias")
    found.public = True
    found.save(wait=True)
    found.delete_alias("px-alias")
    found.delete(wait=True)
    instance.delete(wait=True)


def test_an_ephemeral_instance_goes_when_it_stops(client: Any) -> None:
    wanted = {"name": "px6", "ephemeral": True, "source": IMAGE}
    instance = client.instances.create(wanted, wait=True)
    instance.start(wait=True)
    instance.stop(wait=True, force=True)
    assert not client.instances.exists("px6")


def test_profiles_are_made_changed_and_renamed(client: Any) -> None:
    profile = client.profiles.create("pxp", config={"user.x": "1"}, devices={"eth1": {"type": "none"}})
    assert client.profiles.exists("pxp") and "pxp" in [p.name for p in client.profiles.all()]
    profile.description = "d"
    profile.save()
    profile.put({"config": {"user.a": "1"}, "description": "e", "devices": {}})
    profile.patch({"config": {"user.b": "2"}})
    found = client.profiles.get("pxp")
    assert (found.config, found.description) == ({"user.a": "1", "user.b": "2"}, "e")
    found.rename("pxq")
    assert client.profiles.get("pxq").used_by == []
    client.profiles.get("pxq").delete()
    assert not client.profiles.exists("pxq")


def test_projects_are_made_changed_and_renamed_and_hold_their_own(client: Any, podium: Podium) -> None:
    project = client.projects.create("px-a", description="d", config={"features.images": "false"})
    assert client.projects.exists("px-a") and "px-a" in [p.name for p in client.projects.all()]
    project.description = "e"
    project.save()
    assert client.projects.get("px-a").description == "e"
    client.projects.get("px-a").rename("px-b")
    inside = pylxd.Client(endpoint=str(podium.state_dir / "unix.socket"), project="px-b")
    root = {"root": {"type": "disk", "path": "/", "pool": "default"}}
    inside.instances.create({"name": "a", "source": IMAGE, "devices": root}, wait=True)
    assert len(inside.instances.all()) == 1 and inside.instances.get("a").status == "Stopped"
    with pytest.raises(LXDAPIException, match="Only empty projects can be removed"):
        client.projects.get("px-b").delete()
    inside.instances.get("a").delete(wait=True)
    client.projects.get("px-b").delete()
    assert not client.projects.exists("px-b")


def test_networks_are_made_changed_and_renamed(client: Any) -> None:
    config = {"ipv4.address": f"{net4(0)}.1/24", "ipv6.address": "none"}
    client.networks.create("pxn0", description="d", type="bridge", config=config)
    assert client.networks.exists("pxn0") and "pxn0" in [n.name for n in client.networks.all()]
    network = client.networks.get("pxn0")
    network.config["ipv4.nat"] = "true"
    network.save()
    assert network.state().hwaddr
    listening = {"listen_address": "203.0.113.9", "description": "f", "config": {}, "ports": []}
    target = f"{net4(0)}.5"
    network.forwards.create(listening)
    forward = network.forwards.get("203.0.113.9")
    forward.ports = [{"protocol": "tcp", "listen_port": "80", "target_address": target}]
    forward.save()
    assert network.forwards.get("203.0.113.9").ports[0]["target_address"] == target
    forward.delete()
    network.rename("pxn1")
    client.networks.get("pxn1").delete()
    assert not client.networks.exists("pxn1")


def test_pools_hold_volumes_and_their_snapshots(client: Any) -> None:
    client.storage_pools.create({"name": "pxs", "driver": "btrfs", "config": {"size": "256MiB"}})
    assert client.storage_pools.exists("pxs") and "pxs" in [p.name for p in client.storage_pools.all()]
    pool = client.storage_pools.get("pxs")
    pool.patch({"description": "mine"})
    assert client.storage_pools.get("pxs").description == "mine"
    assert pool.resources.get().space["total"]

    volume = pool.volumes.create({"name": "v1", "type": "custom"}, wait=True)
    volume.put({"description": "d", "config": {"user.a": "1"}})
    volume.patch({"config": {"user.b": "2"}})
    found = pool.volumes.get("custom", "v1")
    assert (found.description, found.config["user.a"], found.config["user.b"]) == ("d", "1", "2")
    found.rename({"name": "v2", "pool": "pxs"}, wait=True)
    found = pool.volumes.get("custom", "v2")
    found.snapshots.create("s1", wait=True)
    assert found.snapshots.exists("s1") and len(found.snapshots.all()) == 1
    found.snapshots.get("s1").rename("s2", wait=True)
    found.restore_from("s2", wait=True)
    found.snapshots.get("s2").restore(wait=True)
    found.snapshots.get("s2").delete(wait=True)
    kept = found.snapshots.create("s3", expires_at="2035-01-01T00:00:00Z", wait=True)
    kept.description = "d"
    kept.save(wait=True)
    (told,) = found.snapshots.all(use_recursion=True)
    assert (told.description, told.expires_at) == ("d", "2035-01-01T00:00:00Z")
    found.rename({"name": "v2", "pool": "default"}, wait=True)
    client.storage_pools.get("default").volumes.get("custom", "v2").delete(wait=True)
    assert pool.volumes.all() == []
    pool.delete()
    assert not client.storage_pools.exists("pxs")


def test_images_are_uploaded_exported_and_found(client: Any) -> None:
    found = client.images.get_by_alias("debian/12")
    assert client.images.exists(found.fingerprint) and client.images.exists("debian/12", alias=True)
    assert found.fingerprint in [i.fingerprint for i in client.images.all()]
    assert found.export().read(4)
    uploaded = client.images.create(_tiny_image(), public=True, wait=True)
    assert uploaded.public and uploaded.export().read(2) == b"\x1f\x8b"
    uploaded.delete(wait=True)


def _tiny_image() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in (
            ("metadata.yaml", b"architecture: x86_64\ncreation_date: 1\n"),
            ("rootfs/a", b"1"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_certificates_are_trusted_and_tokens_made(client: Any) -> None:
    pem = issue(Wanted("px")).certificate
    made = client.certificates.create("", pem, cert_type="client", name="px")
    assert made.fingerprint in [c.fingerprint for c in client.certificates.all()]
    client.certificates.get(made.fingerprint).delete()
    assert client.certificates.create_token(name="pxt", projects=["default"], restricted=True)
    for url in client.api.operations.get().json()["metadata"].get("running", []):
        operation = client.api.operations[url.rpartition("/")[2]]
        if operation.get().json()["metadata"]["class"] == "token":
            operation.delete()


def test_operations_are_told_and_waited_for(client: Any) -> None:
    body = {"name": "px7", "source": IMAGE}
    answer = client.api.instances.post(json=body).json()
    assert client.operations.get(answer["operation"].rpartition("/")[2]).id
    client.operations.wait_for_operation(answer["operation"])
    assert client.operations.get(answer["operation"].rpartition("/")[2]).status_code == 200
    client.instances.get("px7").delete(wait=True)


def test_what_does_not_exist_is_not_found(client: Any) -> None:
    for manager in (
        client.instances,
        client.profiles,
        client.projects,
        client.storage_pools,
        client.networks,
    ):
        with pytest.raises(NotFound):
            manager.get("px-none")
    with pytest.raises(NotFound):
        client.images.get_by_alias("px-none")
