"""Application containers from a real registry: brought, run, watched and stopped."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Podium
from tests.e2e.registry_server import PASSWORD, USER, Registry, debian_layer, serving
from tests.fakes.registry import layer, special
from tests.fakes.registry import registry as fake_registry

_ROOT = Path(__file__).parents[2]
_SCRIPT = b"""#!/bin/sh
echo "$GREETING, $1, I am $(id -u):$(id -g) in $(pwd)" > /dev/stdout
trap 'echo asked to end; exit 7' QUIT
while :; do sleep 0.1; done
"""
_RUN = {
    "Entrypoint": ["/bin/app"],
    "Cmd": ["two words"],
    "Env": ["GREETING=hello"],
    "User": "web",
    "WorkingDir": "/srv/made for it",
    "StopSignal": "SIGQUIT",
}


@pytest.fixture(scope="module")
def registry(podium: Podium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    with serving(folder, guarded=True) as found:
        app = layer(("bin/app", _SCRIPT), ("etc/shadowed", b"x"))
        found.push("team/app:1", [debian_layer(), app, layer(("etc/.wh.shadowed", b""))], _RUN, folder / "a")
        yield found
    for image in podium.rest.call("GET", "/1.0/images?recursion=1"):
        if image["properties"].get("type") == "oci":
            podium.lxc("image", "delete", image["fingerprint"])


def _source(registry: Registry, alias: str = "team/app:1", password: str = PASSWORD) -> dict[str, Any]:
    server = f"http://{USER}:{password}@{registry.host}" if password else registry.url
    return {"type": "image", "mode": "pull", "protocol": "oci", "server": server, "alias": alias}


def _launch(podium: Podium, registry: Registry, name: str, **config: str) -> None:
    body = {"name": name, "source": _source(registry), "config": config, "start": True}
    podium.rest.call("POST", "/1.0/instances", body)


def _until(is_so: Callable[[], bool]) -> None:
    """Look until it is so; a busy machine takes its time."""
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def _key(podium: Podium, name: str, key: str) -> str:
    return podium.lxc("config", "get", name, key).strip()


def _is_stopped(podium: Podium, name: str) -> bool:
    return podium.rest.call("GET", f"/1.0/instances/{name}")["status"] == "Stopped"


def test_an_application_runs_as_its_image_says(podium: Podium, registry: Registry) -> None:
    """User, folder, environment and words are the image's; network, names and supervision are ours."""
    _launch(podium, registry, "app")

    _until(lambda: "hello" in podium.lxc("console", "app", "--show-log"))
    assert "hello, two words, I am 33:33 in /srv/made for it" in podium.lxc("console", "app", "--show-log")
    network = podium.rest.call("GET", "/1.0/instances/app/state")["network"]["eth0"]["addresses"]
    assert any(address["family"] == "inet" and address["scope"] == "global" for address in network)
    assert "nameserver " in podium.lxc("file", "pull", "app/etc/resolv.conf", "-")
    assert podium.lxc("exec", "app", "--", "cat", "/etc/hostname") == "app\n"
    assert podium.run("exec", "app", "--", "cat", "/etc/shadowed").returncode == 1

    podium.lxc("stop", "app", timeout=20)
    assert "asked to end" in podium.lxc("console", "app", "--show-log")
    assert _key(podium, "app", "volatile.last_state.exit_code") == "7"
    podium.lxc("delete", "app")


def test_the_end_of_the_program_is_the_end_of_the_instance(podium: Podium, registry: Registry) -> None:
    _launch(podium, registry, "brief", **{"oci.entrypoint": "sh -c 'exit 3'"})
    _until(lambda: _key(podium, "brief", "volatile.last_state.exit_code") == "3")
    assert _is_stopped(podium, "brief")

    podium.lxc("config", "set", "brief", "restart.policy=on-failure", "restart.attempts=2")
    podium.lxc("start", "brief")
    _until(lambda: _is_stopped(podium, "brief") and _key(podium, "brief", "volatile.restarts") == "2")

    podium.lxc("config", "set", "brief", "oci.entrypoint=/bin/none")
    done = podium.run("start", "brief")
    assert done.returncode and b"exec /bin/none failed: No such file" in done.stderr
    podium.lxc("delete", "brief")


def test_an_image_is_the_same_however_often_it_is_brought(podium: Podium, registry: Registry) -> None:
    first = podium.rest.call("POST", "/1.0/images", {"source": _source(registry)})["metadata"]["fingerprint"]
    again = podium.rest.call("POST", "/1.0/images", {"source": _source(registry)})["metadata"]["fingerprint"]
    assert first == again
    podium.lxc("image", "delete", first)
    anew = podium.rest.call("POST", "/1.0/images", {"source": _source(registry)})["metadata"]["fingerprint"]
    assert first == anew

    image = podium.rest.call("GET", f"/1.0/images/{first}")
    assert image["update_source"]["server"] == registry.url
    assert PASSWORD not in str(image)


def test_an_exported_application_is_one_again(podium: Podium, registry: Registry, tmp_path: Path) -> None:
    """All that it takes to run it is in the files, and their fingerprint is the image's."""
    fingerprint = podium.rest.call("POST", "/1.0/images", {"source": _source(registry)})["metadata"][
        "fingerprint"
    ]
    podium.lxc("image", "export", fingerprint, str(tmp_path / "x"))
    podium.lxc("image", "delete", fingerprint)
    files = sorted(tmp_path.iterdir(), key=lambda path: "root" in path.name)
    said = podium.lxc("image", "import", *map(str, files))
    assert fingerprint in said

    podium.lxc("init", fingerprint, "again")
    assert _key(podium, "again", "oci.entrypoint") == "/bin/app 'two words'"
    podium.lxc("delete", "again")


def test_who_has_no_password_gets_nothing(podium: Podium, registry: Registry) -> None:
    for password in ("", "wrong"):
        with pytest.raises(Exception, match=r"not for whoever asks|user and"):
            podium.rest.call("POST", "/1.0/images", {"source": _source(registry, password=password)})


def test_what_is_hostile_or_missing_leaves_nothing(podium: Podium, registry: Registry) -> None:
    before = podium.rest.call("GET", "/1.0/images")
    with pytest.raises(Exception, match="has no image team/none:1"):
        podium.rest.call("POST", "/1.0/images", {"source": _source(registry, "team/none:1")})
    with fake_registry() as hostile:
        hostile.push(layer(("../../etc/cron.d/x", b"* * * * * root id")))
        hostile.push(layer(("bin", None), special("bin/sh", b"1", link="../../etc/shadow")), tag="2")
        hostile.push(layer(("a", b"x")), tag="3", run={})
        for tag, why in (("1", "leads out"), ("2", "leads out"), ("3", "names no command")):
            source = {"type": "image", "protocol": "oci", "server": hostile.url, "alias": f"app:{tag}"}
            with pytest.raises(Exception, match=why):
                podium.rest.call("POST", "/1.0/instances", {"name": "bad", "source": source})
    assert podium.run("info", "bad").returncode == 1
    left = [i for i in podium.rest.call("GET", "/1.0/images") if i not in before]
    assert len(left) == 1  # the one without a command is sound, and can be launched with one
    podium.lxc("image", "delete", left[0].rpartition("/")[2])
    assert list((podium.state_dir / "images" / "staging").iterdir()) == []


def test_the_command_line_names_registries_and_launches_from_them(
    podium: Podium, registry: Registry, tmp_path: Path
) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "cli", *words]
        environment = {**podium.environment, "PYTHONPATH": str(_ROOT), "PODIUM_CONF": str(tmp_path / "conf")}
        done = subprocess.run(
            argv, capture_output=True, text=True, env=environment, cwd="/", timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done

    server = f"http://{USER}:{PASSWORD}@{registry.host}"
    run("remote", "add", "ours", server, "--protocol", "oci")
    assert PASSWORD not in run("remote", "list").stdout
    assert "Image copied" in run("image", "copy", "ours:team/app:1", "--alias", "app").stdout
    run("launch", "ours:team/app:1", "by-name", "-c", "oci.entrypoint=sleep 100")
    run("delete", "-f", "by-name")

    (tmp_path / "root.tar").write_bytes(debian_layer())
    (tmp_path / "root").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "root.tar", "-C", tmp_path / "root"], check=True)
    for path in ("root.tar", "root"):
        run("image", "import-rootfs", str(tmp_path / path), "os=Plain", "--alias", "plain")
        run("launch", "plain", "plain", "-c", "oci.entrypoint=sleep 100")
        assert "web:x:33" in podium.lxc("exec", "plain", "--", "cat", "/etc/passwd")
        run("delete", "-f", "plain")
        run("image", "delete", "plain")
