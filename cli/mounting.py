"""`podium file mount`: a folder of an instance in a folder of this machine, by sshfs, until ctrl-c."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading

from cli.call import Call
from cli.failure import CliError, Refused
from cli.server import Server, url

_PIECE = 1 << 16


def mount(call: Call) -> int:
    """Return sshfs's exit status."""
    instance, _, path = call.words[0].partition("/")
    target = os.path.abspath(call.words[1])
    if not shutil.which("sshfs"):
        raise CliError(f"{target} cannot be mounted", "sshfs is not installed", "apt install sshfs")
    line = connect(call.server, instance)
    call.say(f"Mounting {instance}/{path} on {target}; ctrl-c ends it")
    argv = ["sshfs", "-f", "-o", "passive", f"{instance}:/{path}", target]
    # A session of its own: ctrl-c is for us, who end it in order.
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
    ) as sshfs:
        threading.Thread(target=_upwards, args=(sshfs, line), daemon=True).start()
        threading.Thread(target=_downwards, args=(line, sshfs), daemon=True).start()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return sshfs.wait()
        except KeyboardInterrupt:
            subprocess.run(["fusermount3", "-u", target], check=False)
            return sshfs.wait()


def connect(server: Server, instance: str) -> socket.socket:
    """Return a connection that speaks SFTP. Raises: Refused."""
    line, target = server.connect(url("instances", instance, "sftp"))
    head = f"GET {target} HTTP/1.1\r\nHost: podium\r\nConnection: Upgrade\r\nUpgrade: sftp\r\n\r\n"
    line.sendall(head.encode())
    reader = line.makefile("rb", buffering=0)
    status = reader.readline().split()
    length = 0
    while (header := reader.readline().strip()) != b"":
        if header.lower().startswith(b"content-length:"):
            length = int(header.partition(b":")[2])
    if status[1:2] == [b"101"]:
        return line
    import json

    answer = json.loads(reader.read(length) or b"{}")
    raise Refused(int(status[1]), str(answer.get("error", "the server does not speak SFTP")))


def _upwards(sshfs: subprocess.Popen[bytes], line: socket.socket) -> None:
    assert sshfs.stdout
    while data := sshfs.stdout.read(_PIECE):
        line.sendall(data)
    line.close()


def _downwards(line: socket.socket, sshfs: subprocess.Popen[bytes]) -> None:
    assert sshfs.stdin
    try:
        while data := line.recv(_PIECE):
            sshfs.stdin.write(data)
        sshfs.stdin.close()
    except OSError:
        pass  # sshfs has ended
