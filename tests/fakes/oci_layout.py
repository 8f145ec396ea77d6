"""An image in a folder as the OCI image specification lays it out, for programs that push it elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

from tests.fakes.registry import CONFIG, LAYER, MANIFEST


def write_layout(folder: Path, layers: list[bytes], run: dict[str, Any], *, tag: str = "1") -> None:
    """Write an image of uncompressed *layers*, lowest first, that is run as *run* says."""
    (folder / "blobs/sha256").mkdir(parents=True)

    def put(data: bytes) -> dict[str, Any]:
        name = hashlib.sha256(data).hexdigest()
        (folder / "blobs/sha256" / name).write_bytes(data)
        return {"digest": f"sha256:{name}", "size": len(data)}

    about = {
        "architecture": "amd64",
        "os": "linux",
        "config": run,
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
        },
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, **put(json.dumps(about).encode())},
        "layers": [{"mediaType": LAYER, **put(gzip.compress(layer, 1, mtime=0))} for layer in layers],
    }
    offer = {
        "mediaType": MANIFEST,
        **put(json.dumps(manifest).encode()),
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [offer]}))
