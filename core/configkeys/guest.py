"""Which keys of an instance its guest may read: those that are meant for it."""

from __future__ import annotations

FOR_GUESTS = ("user.", "cloud-init.")


def of_guest(key: str) -> bool:
    return key.startswith(FOR_GUESTS)
