"""All of etcd is lost, and the pool brings back what it holds: by `make up`, and by the command."""

from __future__ import annotations

import shutil

from deploy import up
from deploy.down import stop
from tests.e2e.conftest import running


def test_a_lost_state_is_made_again_of_what_the_pool_holds() -> None:
    """Instances with snapshots and data, volumes, and the pool itself; the image's files were kept."""
    with running() as podium:
        podium.lxc("launch", "debian/12", "kept")
        podium.lxc("snapshot", "kept", "s0")
        podium.lxc("storage", "volume", "create", "default", "data", "user.x=1")
        podium.lxc("storage", "volume", "attach", "default", "data", "kept", "/srv/data")
        podium.lxc("exec", "kept", "--", "sh", "-c", "echo one >/root/f; echo two >/srv/data/f")
        podium.lxc("stop", "-f", "kept")
        stop(podium.settings)
        shutil.rmtree(podium.state_dir / "etcd")
        rest = up.start(podium.settings)
        up.ensure_defaults(rest, podium.settings)
        assert podium.lxc("list", "-f", "csv", "-c", "nsS").strip() == "kept,STOPPED,1"
        assert "user.x" in podium.lxc("storage", "volume", "show", "default", "data")
        podium.lxc("start", "kept")
        found = podium.lxc("exec", "kept", "--", "cat", "/root/f", "/srv/data/f")
        assert found.split() == ["one", "two"]
        podium.lxc("restore", "kept", "s0")
