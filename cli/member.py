"""`podium up`, `down` and `purge`: what `make` does, from the command line."""

from __future__ import annotations

from cli.call import Call


def up(call: Call) -> int:
    from deploy import up

    return up.main()


def down(call: Call) -> int:
    from deploy import down

    return down.main()


def purge(call: Call) -> int:
    from deploy import purge

    return purge.main()
