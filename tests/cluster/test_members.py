"""Three members are one Podium: what each has, all show, and one that dies takes nothing from the others."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
from collections.abc import Iterator

import pytest

from tests.cluster.harness import Cluster, Member, cluster, wait_for
from tests.fakes.image_server import METADATA, tar


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    with cluster("m1", "m2", "m3") as found:
        for name in found:
            found.first.lxc("launch", "debian/12", f"on-{name}", "--target", name)
        yield found


def _locations(found: Cluster, asked: str) -> list[str]:
    return sorted(found[asked].lxc("list", "-f", "csv", "-c", "nsL").split())


def test_each_gateway_shows_all_members_and_instances(three: Cluster) -> None:
    for name in three:
        listed = three[name].lxc("cluster", "list", "-f", "csv").splitlines()
        assert [line.split(",")[0] for line in listed] == ["m1", "m2", "m3"]
        assert all("ONLINE" in line for line in listed)
        wanted = [f"on-{n},RUNNING,{n}" for n in three]
        assert _locations(three, name) == wanted
        assert json.loads(three[name].lxc("query", "/1.0"))["environment"]["server_clustered"] is True


def test_three_etcds_have_a_vote(three: Cluster) -> None:
    wait_for(lambda: three.first.lxc("cluster", "list", "-f", "csv").count(",database,") == 3)
    assert "roles:\n- database" in three["m2"].lxc("cluster", "show", "m3")


def test_commands_and_files_go_to_the_members(three: Cluster) -> None:
    """With input and output, an exit code, a terminal, and more bytes than one message holds."""
    asked = three["m2"]
    said = asked.lxc("exec", "on-m3", "--", "sh", "-c", "cat; hostname", input=b"in ")
    assert said == "in on-m3\n"
    assert asked.run("exec", "on-m1", "--", "sh", "-c", "exit 7").returncode == 7
    assert "on-m1" in asked.lxc("exec", "-t", "on-m1", "--", "hostname")
    many = bytes(range(256)) * 20_000
    asked.lxc("file", "push", "-", "on-m1/root/many", input=many)
    done = three["m3"].run("file", "pull", "on-m1/root/many", "-")
    assert done.stdout == many


def test_an_instance_is_changed_wherever_it_is(three: Cluster) -> None:
    asked = three["m3"]
    asked.lxc("config", "set", "on-m1", "user.note=x")
    assert three["m2"].lxc("config", "get", "on-m1", "user.note") == "x\n"
    asked.lxc("snapshot", "on-m1", "s1")
    asked.lxc("stop", "-f", "on-m1")
    asked.lxc("restore", "on-m1", "s1")
    asked.lxc("copy", "on-m1", "beside")
    assert "beside,STOPPED,m1" in _locations(three, "m2")
    asked.lxc("rename", "beside", "renamed")
    asked.lxc("delete", "renamed")
    asked.lxc("start", "on-m1")
    said = asked.run("move", "on-m1", "--target", "m2")
    assert said.returncode == 1


def test_new_instances_go_where_the_fewest_are(three: Cluster) -> None:
    three["m1"].lxc("init", "debian/12", "extra", "--target", "m1")
    three["m1"].lxc("init", "debian/12", "placed")
    placed = [line for line in _locations(three, "m1") if line.startswith("placed")]
    assert placed and placed[0].rpartition(",")[2] in ("m2", "m3")
    three["m2"].lxc("delete", "placed", "extra")
    said = three["m1"].run("init", "debian/12", "nowhere", "--target", "m9")
    assert said.returncode == 1 and b"Cluster member not found" in said.stderr


def _asked_to_join(found: Cluster, **changed: str) -> tuple[int, str]:
    """Show a token of m1's to its REST API as a stranger does, with what is *changed* of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(found.first.address, 8443, timeout=30, context=context)
    body = {
        "secret": "0" * 64,
        "name": "m4",
        "address": "192.0.2.9:9470",
        "certificate_request": "",
        **changed,
    }
    connection.request("POST", "/internal/cluster/accept", json.dumps(body))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer["error_code"], answer["error"]


def test_nobody_joins_without_a_token_for_that_name(three: Cluster) -> None:
    """What is refused uses no token up, and tells nothing of what there is."""
    text = three.first.lxc("cluster", "add", "m4").split()[-1]
    secret = json.loads(base64.b64decode(text))["secret"]

    refusals = [
        _asked_to_join(three),
        _asked_to_join(three, secret=""),
        _asked_to_join(three, secret=secret, name="m5"),
        _asked_to_join(three, secret=secret, name="m1"),
    ]
    assert set(refusals) == {(403, "No matching cluster join operation found")}
    assert _asked_to_join(three, secret=secret) == (400, "The request for a certificate cannot be read")
    assert _asked_to_join(three, secret=secret, address="127.0.0.1:1")[0] == 400
    assert _asked_to_join(three, secret=secret, address="a,b=http://c:1")[0] == 400
    assert "m4" not in three.first.lxc("cluster", "list", "-f", "csv")
    [token] = three.first.lxc("cluster", "list-tokens", "-f", "csv").splitlines()
    assert token.startswith("m4,")
    said = three["m2"].run("cluster", "add", "m5")
    assert said.returncode == 1 and b"ask there" in said.stderr


def test_instances_of_three_members_meet_on_an_overlay(three: Cluster) -> None:
    """By their names, and with their network's services on the member where each is."""
    three.first.lxc(
        "network", "create", "ov", "--type=overlay", "ipv4.address=10.94.7.1/24", "ipv6.address=none"
    )
    names = [f"ov-{name}" for name in three]
    for name, member in zip(names, three, strict=True):
        three["m2"].lxc("launch", "debian/12", name, "--network", "ov", "--target", member)
    for name in names:
        for other in names:
            ping = ("exec", name, "--", "ping", "-c1", "-W1", f"{other}.lxd")
            wait_for(lambda ping=ping: not three["m3"].run(*ping).returncode, 60)  # type: ignore[misc]
    leases = three["m3"].lxc("network", "list-leases", "ov", "-f", "csv")
    assert len({line.split(",")[2] for line in leases.splitlines()}) >= len(names)
    three["m1"].lxc("delete", "--force", *names)
    three["m1"].lxc("network", "delete", "ov")


def _files(member: Member) -> set[str]:
    return {
        p.name for folder in ("blobs", "squashfs") for p in (member.state_dir / "images" / folder).iterdir()
    }


def test_an_image_goes_to_who_launches_it_and_from_all_who_have_it(three: Cluster) -> None:
    """Its files are fetched from the member that has them."""
    first, second = three["m1"], three["m2"]
    before = _files(first)
    path = first.conf / "small"
    path.write_bytes(tar({"metadata.yaml": METADATA, "rootfs/etc/noise": os.urandom(1 << 20)}))
    first.lxc("image", "import", str(path), "--alias", "small")
    own = _files(first) - before

    first.lxc("init", "small", "of-small", "--target", second.name)
    assert own and own <= _files(second)
    second.lxc("image", "export", "small", str(second.conf / "out"))
    assert (second.conf / "out.tar.gz").read_bytes() == path.read_bytes()

    second.lxc("image", "delete", "small")
    wait_for(lambda: not own & _files(first))
    assert own <= _files(second), "an instance lies on it"
    first.lxc("delete", "of-small")


@pytest.mark.parametrize("dead", ["m1"])
def test_a_member_that_dies_harms_no_other(three: Cluster, dead: str) -> None:
    """Its instances go on and say that nobody tells of them; whoever asks hears which member is away."""
    alive = next(name for name in ("m2", "m3") if name != dead)
    three[dead].kill()
    wait_for(lambda: f"on-{dead},ERROR,{dead}" in _locations(three, alive), 30)

    said = three[alive].run("exec", f"on-{dead}", "--", "true")
    assert said.returncode == 1 and f"Member '{dead}' does not answer".encode() in said.stderr
    three[alive].lxc("launch", "debian/12", "meanwhile")
    assert three[alive].lxc("exec", "meanwhile", "--", "hostname") == "meanwhile\n"
    three[alive].lxc("delete", "-f", "meanwhile")
    assert f"{dead}," in three[alive].lxc("cluster", "list", "-f", "csv")

    three[dead].start()
    wait_for(lambda: _locations(three, alive) == [f"on-{n},RUNNING,{n}" for n in three])
    assert three[alive].lxc("exec", f"on-{dead}", "--", "hostname") == f"on-{dead}\n"
