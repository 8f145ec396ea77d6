"""Part of the image's build: user podium, and the state folder as a new volume will start with."""

from __future__ import annotations

from core.settings import Settings
from deploy import host


def main() -> None:
    settings = Settings.from_env()
    host.ensure_user(settings.group)
    host.ensure_folders(settings)
    host.ensure_subordinate_ids()


if __name__ == "__main__":
    main()
