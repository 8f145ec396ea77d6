"""`podium image build`: by the server from a recipe, or by the builder beside us, whose image is imported."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time

from cli.aliases import point
from cli.call import Call
from cli.failure import CliError
from cli.progress import alive
from cli.server import url
from cli.texts import duration
from cli.transfers import upload

_TAIL = 8192
_CACHE = "/var/cache/podium/images"


def build(call: Call) -> None:
    if len(call.words) == 1:
        _build_recipe(call, call.words[0])
        return
    distribution, release = call.words
    alias = call.text("alias", f"{distribution}/{release}")
    began = time.monotonic()
    os.makedirs(_CACHE, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="built-", dir=_CACHE) as folder:
        output = os.path.join(folder, f"{distribution}-{release}.tar.gz")
        _run_builder(call, distribution, release, output)
        fingerprint = _import(call, output)
    point(call.server, alias, fingerprint)
    print(f"Built {alias} in {duration(time.monotonic() - began)}, fingerprint {fingerprint[:12]}")


def _build_recipe(call: Call, path: str) -> None:
    """Have the server build it; what the build said is kept also when it failed."""
    alias = call.text("alias", os.path.basename(path).rsplit(".", 1)[0])
    try:
        with open(path) as file:
            recipe = file.read()
    except (OSError, ValueError) as exc:
        raise CliError("the recipe cannot be read", str(exc), "podium image build --help") from None
    began = time.monotonic()
    source = {"type": "build", "recipe": recipe, "force": call.on("force")}
    reply = call.server.begin("POST", url("images"), {"source": source, "aliases": [{"name": alias}]})
    operation = reply["metadata"]
    try:
        done = call.server.wait(operation, doing=f"Building {alias}")
    finally:
        if call.text("log"):
            _write_log(call, operation["id"])
    fingerprint = done["metadata"]["fingerprint"]
    print(f"Built {alias} in {duration(time.monotonic() - began)}, fingerprint {fingerprint[:12]}")


def _write_log(call: Call, operation: str) -> None:
    said = (call.server.get(url("operations", operation))["metadata"] or {}).get("build_log") or []
    with open(call.text("log"), "w") as file:
        file.writelines(f"{line}\n" for line in said)


def _run_builder(call: Call, distribution: str, release: str, output: str) -> None:
    """Raises: CliError with the last line the builder wrote."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    argv = [sys.executable, "-m", "services.image.build", distribution, release, "--output", output]
    for package in call.texts("package"):
        argv += ["--package", package]
    with (
        tempfile.TemporaryFile("w+") as log,
        alive(
            f"Building {distribution} {release}",
            lambda: {"metadata": {"log_progress": _last_line(log.fileno())}},
            quiet=call.is_quiet,
        ),
    ):
        code = subprocess.run(argv, cwd=root, stdout=log, stderr=log, check=False).returncode
        why = _reason(log.fileno())
    if code:
        raise CliError(
            "the image was not built",
            why or f"the builder ended with {code}",
            "apt-get update, to see whether the mirror answers",
        )


def _reason(log: int) -> str:
    """Return the first line of a failed run that calls itself an error, or its last line."""
    lines = _lines(log)
    marked = [line for line in lines if line.startswith("E: ") or "error: " in line]
    return (marked or lines[-1:] or [""])[0].removeprefix("E: ").rpartition("error: ")[2][:300]


def _last_line(log: int) -> str:
    lines = _lines(log)
    return lines[-1][:100] if lines else ""


def _lines(log: int) -> list[str]:
    start = max(0, os.fstat(log).st_size - _TAIL)
    return os.pread(log, _TAIL, start).decode(errors="replace").strip().splitlines()


def _import(call: Call, path: str) -> str:
    """Return the fingerprint; what the server has already is not sent again."""
    with open(path, "rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
    return fingerprint if call.server.find(url("images", fingerprint)) else upload(call, [path], {})
