"""The main path by `podium`, beside the stock client on the same server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import Podium
from tests.e2e.test_events_since import newest

ROOT = Path(__file__).parents[2]
ARGV = [sys.executable, "-m", "cli"]
Cli = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def environment(podium: Podium, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    conf = tmp_path_factory.mktemp("podium-conf")
    return {**podium.environment, "PYTHONPATH": str(ROOT), "PODIUM_CONF": str(conf), "TERM": "xterm"}


@pytest.fixture(scope="module")
def cli(environment: dict[str, str]) -> Cli:
    def run(*words: str, input: bytes = b"", timeout: float = 120) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*ARGV, *words],
            input=input,
            capture_output=True,
            timeout=timeout,
            env=environment,
            cwd="/",
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def web(cli: Cli) -> Iterator[str]:
    """A running container, launched by `podium launch`."""
    name = f"cli-{secrets.token_hex(3)}"
    done = cli("launch", "debian/12", name, "-c", "user.role=web")
    assert done.returncode == 0, done.stderr.decode()
    yield name
    assert cli("delete", "--force", name).returncode == 0


def until_done(cli: Cli, *words: str) -> None:
    """Run it again until the server is back; that it was done by a try without an answer is fine."""
    end = time.monotonic() + 30
    while (done := cli(*words)).returncode and b"exists" not in done.stderr:
        assert time.monotonic() < end, done.stderr
        time.sleep(0.1)


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_a_launch_says_how_long_it_took_and_where_the_container_is(cli: Cli, podium: Podium) -> None:
    """The address is the one that `list` shows once the container has taken its lease."""
    name = f"cli-{secrets.token_hex(3)}"

    lines = said(cli("launch", "debian/12", name)).splitlines()

    assert lines[:2] == [f"Creating {name}", f"Starting {name}"]
    match = re.fullmatch(rf"Launched {name} in [\d.]+ m?s, address ([\d.]+)", lines[2])
    assert match, lines
    assert match[1] in podium.lxc("network", "list-leases", podium.settings.bridge, "--format=csv")
    assert said(cli("delete", "-f", name)) == ""
    assert name not in podium.lxc("list", "--format=csv")


def test_streams_exit_code_and_environment_come_through(cli: Cli, web: str) -> None:
    script = 'echo "$GREETING"; pwd; id -u; echo oops >&2; exit 7'

    done = cli(
        "exec", web, "--env", "GREETING=hi", "--cwd", "/tmp", "--user", "65534", "--", "sh", "-c", script
    )

    assert (done.stdout, done.stderr, done.returncode) == (b"hi\n/tmp\n65534\n", b"oops\n", 7)


def test_standard_input_is_binary_clean_up_to_its_end(cli: Cli, web: str) -> None:
    data = os.urandom(3_000_001)

    assert cli("exec", web, "--", "cat", input=data).stdout == data
    assert cli("exec", web, "-n", "--", "cat", input=data).stdout == b""


def test_a_caller_that_closed_its_descriptors_loses_nothing(web: str, environment: dict[str, str]) -> None:
    """The first socket would become descriptor 0, and be read as standard input."""
    line = 'exec "$@" <&- 2>&-'
    argv = ["sh", "-c", line, "sh", *ARGV, "exec", web, "--", "sh", "-c", "cat; echo done; exit 4"]

    done = subprocess.run(argv, env=environment, cwd="/", stdout=subprocess.PIPE, timeout=60, check=False)

    assert (done.stdout, done.returncode) == (b"done\n", 4)


def test_a_reader_that_leaves_ends_the_command(web: str, environment: dict[str, str]) -> None:
    """As in a pipe on one machine: `podium exec web -- yes | head -1`."""
    argv = [*ARGV, "exec", web, "-n", "--", "yes"]
    with subprocess.Popen(argv, env=environment, cwd="/", stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"y\n"
        run.stdout.close()
        run.wait(20)


def test_a_command_that_is_not_there_ends_with_127_and_three_lines(cli: Cli, web: str) -> None:
    done = cli("exec", web, "--", "no-such-command")

    assert done.returncode == 127
    assert done.stderr.decode().splitlines()[-3:] == [
        f"Error: podium exec {web} no-such-command failed",
        "Why: Command not found",
        f"Try: podium exec {web} -- sh -c 'echo $PATH'",
    ]


def test_signals_reach_the_command(web: str, environment: dict[str, str]) -> None:
    """ctrl-c in a script must end what runs in the container, not only its client."""
    script = "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    argv = [*ARGV, "exec", web, "--", "sh", "-c", script]
    with subprocess.Popen(
        argv, env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        run.send_signal(signal.SIGTERM)
        assert run.stdout.read() == b"got\n"
        assert run.wait(20) == 5


def in_terminal(
    argv: list[str], environment: dict[str, str], typed: list[tuple[bytes, bytes]]
) -> tuple[str, int]:
    """Run in a pty of 90x33; type each text once its cue was seen. Return output and code."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir("/")
        os.execve(argv[0], argv, environment)
    import fcntl
    import struct
    import termios

    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 90, 0, 0))
    output, seen, end = b"", 0, time.monotonic() + 60
    todo = list(typed)
    while time.monotonic() < end:
        if todo and (at := output.find(todo[0][0], seen)) >= 0:
            seen = at + len(todo[0][0])
            os.write(fd, todo.pop(0)[1])
        if not select.select([fd], [], [], 0.1)[0]:
            continue
        try:
            data = os.read(fd, 65536)
        except OSError:
            break  # Linux says EIO once the other side of a pty is closed
        if not data:
            break
        output += data
    os.close(fd)
    return output.decode(errors="replace"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_shell_in_a_terminal_has_its_size_and_keys(web: str, environment: dict[str, str]) -> None:
    typed = [(b"# ", b"stty size; echo $TERM\n"), (b"xterm\r\n", b"echo go; cat\n")]
    typed += [(b"go\r\n", b"\x03"), (b"# ", b"exit 9\n")]

    output, code = in_terminal([*ARGV, "exec", web, "--", "sh"], environment, typed)

    assert "33 90" in output
    assert code == 9


def test_the_console_is_left_by_ctrl_a_q(web: str, environment: dict[str, str]) -> None:
    output, code = in_terminal(
        [*ARGV, "console", web], environment, [(b"To detach", b"\n"), (b"login:", b"\x01q")]
    )

    assert "login:" in output
    assert code == 0


def test_files_go_in_and_come_out_as_they_are(cli: Cli, web: str, tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.write_bytes(os.urandom(2_500_000))
    source.chmod(0o640)

    said(cli("file", "push", str(source), f"{web}/root/deep/er/data", "-p"))
    said(cli("file", "pull", f"{web}/root/deep/er/data", f"{tmp_path}/back"))

    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o640
    assert cli("file", "pull", f"{web}/root/deep/er/data", "-").stdout == source.read_bytes()


def test_a_pipe_can_be_pushed_and_a_file_replaced(cli: Cli, web: str) -> None:
    said(cli("file", "push", "-", f"{web}/root/note", "--mode", "0600", "--uid", "1000", input=b"one"))
    said(cli("file", "edit", f"{web}/root/note", input=b"two"))

    assert (
        said(cli("exec", web, "--", "sh", "-c", "stat -c '%a %u' /root/note; cat /root/note"))
        == "600 1000\ntwo"
    )
    said(cli("file", "delete", f"{web}/root/note"))
    assert cli("file", "pull", f"{web}/root/note", "-").returncode == 1


def test_a_tree_goes_in_and_comes_out_with_its_links_and_modes(cli: Cli, web: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_text("x")
    (tree / "sub" / "file").chmod(0o600)
    (tree / "link").symlink_to("sub/file")

    said(cli("file", "push", "-r", str(tree), f"{web}/root/"))
    said(cli("file", "pull", "-r", f"{web}/root/tree", f"{tmp_path}/out"))

    back = tmp_path / "out" / "tree"
    assert (back / "link").readlink() == Path("sub/file")
    assert (back / "sub" / "file").stat().st_mode & 0o777 == 0o600
    assert (back / "link").read_text() == "x"


@pytest.mark.parametrize(
    "line",
    [
        "list --format=csv -c nsPtSacdeblfF46",
        "list -c ns46tS",
        "list --fast",
        "list --format=compact -c nst",
        "list user.role=web -c n,user.role:WHO:2,devices:eth0.name",
        "list status=stopped",
        "image list",
        "image list --format=yaml",
        "image info debian/12",
        "image show debian/12",
        "image alias list",
        "profile list",
        "profile show default",
        "project list --format=csv",
        "project show default",
        "project info default",
        "storage list",
        "storage show default",
        "network list",
        "warning list",
        "config trust list",
        "config show",
        "query /1.0/profiles",
        "network show BRIDGE",
        "network list-leases BRIDGE",
        "config show WEB",
        "config show --expanded WEB",
        "config device list WEB",
        "config get WEB volatile.uuid",
        "config device show WEB",
    ],
)
def test_both_clients_print_the_same(cli: Cli, podium: Podium, web: str, line: str) -> None:
    """To the byte, but for the order of an image's properties, which the stock client leaves to chance."""
    words = line.replace("WEB", web).replace("BRIDGE", podium.settings.bridge).split()

    ours, theirs = said(cli(*words)), podium.lxc(*words)

    if "info" in words:
        ours, theirs = "\n".join(sorted(ours.splitlines())), "\n".join(sorted(theirs.splitlines()))
    if "yaml" in line:
        assert _without_zeros(yaml.safe_load(ours)) == _without_zeros(yaml.safe_load(theirs))
    else:
        assert ours.rstrip("\n") == theirs.rstrip("\n")


def _without_zeros(value: object) -> object:
    """Bring times and empty collections, which Go writes in its own way, to one form."""
    return json.loads(re.sub(r"\.0+Z", "Z", json.dumps(value, default=str)))


def test_the_list_is_the_same_object_as_the_stock_clients(cli: Cli, podium: Podium, web: str) -> None:
    """Figures that change from second to second are left out."""
    ours = json.loads(said(cli("list", "--format=json")))
    theirs = json.loads(podium.lxc("list", "--format=json"))

    for found in (ours, theirs):
        for instance in found:
            for moving in ("state", "backups", "snapshots"):
                instance.pop(moving, None)
    assert ours == theirs
    assert yaml.safe_load(said(cli("list", web, "--format=yaml")))[0]["name"] == web


def test_configuration_and_devices_are_set_and_unset(cli: Cli, podium: Podium, web: str) -> None:
    said(cli("config", "set", web, "limits.memory=300MiB", "user.note=x"))
    assert podium.lxc("config", "get", web, "limits.memory") == "300MiB\n"
    said(cli("config", "unset", web, "user.note"))
    assert cli("config", "unset", web, "user.note").returncode == 1
    said(cli("config", "device", "add", web, "gap", "none"))
    assert said(cli("config", "device", "get", web, "gap", "type")) == "none\n"
    said(cli("config", "device", "remove", web, "gap"))
    said(cli("config", "edit", web, input=b"description: edited by a pipe\n"))
    assert podium.lxc("list", web, "-c", "d", "--format=csv") == "edited by a pipe\n"


def test_states_change_one_by_one_and_many_at_once(cli: Cli, podium: Podium) -> None:
    """What fails for one of several is said for that one, and the others are done."""
    names = [f"cli-{secrets.token_hex(3)}" for _ in range(2)]
    for name in names:
        said(cli("init", "debian/12", name))
    said(cli("start", *names))
    said(cli("pause", *names))
    said(cli("start", names[0]))
    said(cli("stop", "--force", names[0]))
    done = cli("stop", "-f", *names)
    assert done.returncode == 1
    assert f"{names[0]}: The instance is already stopped" in done.stderr.decode()
    said(cli("rename", names[0], f"{names[0]}-new"))
    said(cli("move", f"{names[0]}-new", names[0]))
    said(cli("delete", *names))
    assert not set(names) & set(podium.lxc("list", "-c", "n", "--format=csv").split())


def test_waiting_goes_on_while_the_gateway_restarts(
    cli: Cli, podium: Podium, environment: dict[str, str]
) -> None:
    """The operation is durable, and the one who waits for it should not have to know of a crash."""
    name = f"cli-{secrets.token_hex(3)}"
    said(cli("launch", "debian/12", name))
    slow = ["systemd-run", "--unit=slow", "-p", "ExecStop=/bin/sleep 3", "sleep", "infinity"]
    said(
        cli(
            "exec",
            name,
            "--",
            "sh",
            "-c",
            "until systemctl is-system-running | grep -qE 'run|deg'; do sleep 0.1; done",
        )
    )
    said(cli("exec", name, "--", *slow))

    with subprocess.Popen([*ARGV, "stop", name], env=environment, cwd="/") as stop:
        time.sleep(1)
        assert stop.poll() is None
        os.kill(podium.processes()["gateway"], signal.SIGKILL)
        assert stop.wait(60) == 0

    assert said(cli("list", name, "-c", "s", "--format=csv")) == "STOPPED\n"
    said(cli("delete", name))


def test_an_image_goes_out_and_comes_in_again(cli: Cli, tmp_path: Path) -> None:
    said(cli("image", "export", "debian/12", f"{tmp_path}/image"))
    assert (tmp_path / "image.tar.gz").stat().st_size > 1_000_000
    done = cli("image", "import", f"{tmp_path}/image.tar.gz", "--alias", "again")
    assert done.returncode == 1
    assert "already exists" in done.stderr.decode()
    fingerprint = said(cli("image", "list", "-c", "f", "--format=csv")).strip()
    said(cli("image", "alias", "create", "again", fingerprint))
    said(cli("image", "alias", "rename", "again", "once-more"))
    assert "once-more" in said(cli("image", "info", fingerprint))
    said(cli("image", "alias", "delete", "once-more"))


def test_an_image_is_built_and_may_be_built_again(cli: Cli) -> None:
    """From the cache that set-up has filled; the alias then names what was built."""
    text = said(cli("image", "build", "debian", "12", "--alias", "mine", timeout=900))

    assert re.search(r"Built mine in .*, fingerprint [0-9a-f]{12}", text)
    said(cli("image", "alias", "delete", "mine"))


def test_objects_are_made_changed_and_deleted(cli: Cli, podium: Podium) -> None:
    said(cli("profile", "create", "cli-p"))
    said(cli("profile", "set", "cli-p", "limits.cpu=1"))
    said(cli("profile", "device", "add", "cli-p", "gap", "none"))
    said(cli("profile", "copy", "cli-p", "cli-q"))
    assert "limits.cpu" in podium.lxc("profile", "show", "cli-q")
    said(cli("profile", "rename", "cli-q", "cli-r"))
    for name in ("cli-p", "cli-r"):
        said(cli("profile", "delete", name))
    said(cli("storage", "create", "cli-s", "dir"))
    assert yaml.safe_load(said(cli("storage", "info", "cli-s")))["info"]["driver"] == "dir"
    said(cli("storage", "delete", "cli-s"))
    bridge = f"pod{secrets.token_hex(3)}"
    said(cli("network", "create", bridge, "ipv6.address=none"))
    said(cli("network", "set", bridge, "ipv4.nat=false"))
    assert said(cli("network", "get", bridge, "ipv4.nat")) == "false\n"
    assert f"Name: {bridge}" in said(cli("network", "info", bridge))
    said(cli("network", "delete", bridge))


def test_a_project_can_be_made_the_current_one(cli: Cli, web: str) -> None:
    said(cli("project", "create", "cli-project"))
    said(cli("project", "switch", "cli-project"))
    assert said(cli("list", "--format=csv")) == ""
    assert web in said(cli("--project", "default", "list", "--format=csv"))
    said(cli("project", "switch", "default"))
    said(cli("project", "delete", "cli-project"))
    assert cli("project", "switch", "cli-project").returncode == 1


def test_a_token_of_ours_lets_the_stock_client_in(cli: Cli, podium: Podium) -> None:
    """It is the base64 that `lxc remote add` decodes."""
    for known in json.loads(said(cli("config", "trust", "list", "--format=json"))):
        said(cli("config", "trust", "remove", known["fingerprint"]))  # of tests that used the same client
    token = said(cli("config", "trust", "add", "--name", "cli-laptop")).splitlines()[1]
    podium.lxc("remote", "add", "cli-remote", token, "--accept-certificate")
    try:
        assert "cli-laptop" in said(cli("config", "trust", "list"))
        assert said(cli("config", "trust", "list", "--format=csv")) == podium.lxc(
            "config", "trust", "list", "--format=csv"
        )
    finally:
        podium.lxc("remote", "remove", "cli-remote")
        listed = json.loads(said(cli("config", "trust", "list", "--format=json")))
        for certificate in listed:
            said(cli("config", "trust", "remove", certificate["fingerprint"]))


@contextlib.contextmanager
def monitoring(environment: dict[str, str], *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """Follow life-cycle events for the block; whatever happens in it, the process ends."""
    argv = [*ARGV, "monitor", "--type=lifecycle", "--format=json", *flags]
    with subprocess.Popen(argv, env=environment, cwd="/", stdout=subprocess.PIPE) as monitor:
        limit = threading.Timer(60, monitor.kill)
        limit.start()
        try:
            yield monitor
        finally:
            limit.cancel()
            monitor.kill()


def seen(monitor: subprocess.Popen[bytes], word: bytes) -> bool:
    """Read on to the event that has *word*; others tell of what tests before this one left to do."""
    assert monitor.stdout is not None
    return any(word in line for line in monitor.stdout)


def test_events_are_followed(cli: Cli, environment: dict[str, str]) -> None:
    with monitoring(environment) as monitor:
        assert monitor.stdout is not None
        for attempt in range(50):  # the subscription starts a moment after the process
            said(cli("profile", "create", f"cli-e{attempt}"))
            said(cli("profile", "delete", f"cli-e{attempt}"))
            if select.select([monitor.stdout], [], [], 0.2)[0]:
                break
        assert seen(monitor, b"profile-")


def test_a_monitor_survives_its_gateway_and_misses_nothing(
    cli: Cli, podium: Podium, environment: dict[str, str]
) -> None:
    with monitoring(environment, "--since", newest(podium)) as monitor:
        said(cli("profile", "create", "cli-before"))
        assert seen(monitor, b"cli-before")
        os.kill(podium.processes()["gateway"], signal.SIGKILL)
        until_done(cli, "profile", "create", "cli-after")
        assert seen(monitor, b"cli-after")
    said(cli("profile", "delete", "cli-before"))
    said(cli("profile", "delete", "cli-after"))


def test_what_is_not_there_is_said_in_three_lines(cli: Cli) -> None:
    for words in (
        ["start", "nothing-here"],
        ["launch", "no-image"],
        ["profile", "show", "none"],
        ["query", "/1.0/x"],
    ):
        done = cli(*words)
        assert done.returncode == 1
        assert [line.partition(":")[0] for line in done.stderr.decode().splitlines()] == [
            "Error",
            "Why",
            "Try",
        ]


def test_names_are_completed_from_the_server(cli: Cli, web: str) -> None:
    assert web in said(cli("__complete", "exec", web[:5])).split()
    assert "debian/12" in said(cli("__complete", "launch", "deb")).split()


def test_a_snapshot_of_the_state_can_be_restored(cli: Cli, tmp_path: Path) -> None:
    """The check restores it into a folder of its own with etcd's tool."""
    said(cli("admin", "etcd", "snapshot", f"{tmp_path}/snapshot"))
    found = json.loads(said(cli("admin", "etcd", "check", f"{tmp_path}/snapshot")))
    assert found["is_whole"] and found["restored"] is True
    with (tmp_path / "snapshot").open("r+b") as file:
        file.seek(6000)
        file.write(b"damage")
    assert cli("admin", "etcd", "check", f"{tmp_path}/snapshot").returncode == 1
