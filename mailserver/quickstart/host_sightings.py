"""What is seen of this host itself: its name, ports, disk and clock."""

from __future__ import annotations

import os

from mailserver.quickstart.verdicts import Outlook, Sighting
from mailserver.quickstart.what_is_seen import Seeing

__all__ = ["clock", "disk", "host_name", "ports"]

SLOW_SECONDS = 0.03
ROOM_OCTETS = 1 << 30
OFF_SECONDS = 30.0  # signatures, tokens and certificates bear little more
TIME_HOST = "pool.ntp.org"
LOW_PORTS = 1024


def host_name(seeing: Seeing) -> list[Sighting]:
    """The name must be full, and should be the host's own."""
    name, own = seeing.wishes.hostname, seeing.own_name
    if own == name or own == name.partition(".")[0]:
        return [Sighting("host name", Outlook.OK, name)]
    why = f"the server calls itself {name}, and this host is called {own or 'nothing'}"
    return [Sighting("host name", Outlook.WARN, why, f"hostnamectl set-hostname {name}   (or say --hostname)")]


def ports(seeing: Seeing) -> list[Sighting]:
    """Each port on which the server will listen."""
    wishes = seeing.wishes
    wanted = [wishes.ports.mx, wishes.ports.submissions, wishes.ports.submission]
    wanted += [wishes.ports.https, wishes.ports.http] if wishes.with_web else []
    found: list[Sighting] = []
    free: list[str] = []
    for port in wanted:
        why = "" if seeing.runs else seeing.eyes.why_not_listen(port)
        if not why:
            free.append(str(port))
        elif port < LOW_PORTS and "may not" in why:
            fix = "start it as root, or let it: sysctl net.ipv4.ip_unprivileged_port_start=25"
            found.append(Sighting("ports", Outlook.FAIL, f"port {port}: {why}", fix))
        else:
            holder = seeing.eyes.holder_of(port)
            fix = f"systemctl disable --now {holder}" if holder else f"find out who holds it: ss -ltnp 'sport = :{port}'"
            found.append(Sighting("ports", Outlook.FAIL, f"port {port}: {why}{f' ({holder} holds it)' if holder else ''}", fix))
    if free:
        found.insert(0, Sighting("ports", Outlook.OK, f"{', '.join(free)}: {'the server has them' if seeing.runs else 'free'}"))
    if wishes.ports.mx != 25:
        why = f"mail from others comes to port 25, and the server will listen on {wishes.ports.mx}"
        found.append(Sighting("ports", Outlook.WARN, why, f"lead port 25 there: a router, nft, -p 25:{wishes.ports.mx}"))
    return found


def disk(seeing: Seeing) -> list[Sighting]:
    """A message is acknowledged after one sync; and there has to be room."""
    folder = seeing.wishes.data
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    try:
        seconds, room = seeing.eyes.sync_seconds(folder), seeing.eyes.free_octets(folder)
    except OSError as error:
        return [Sighting("disk", Outlook.UNKNOWN, f"{folder}: {error.strerror or error}")]
    said = f"{folder}: a sync takes {seconds * 1000:.1f} ms, {room / 2**30:.1f} GiB are free"
    if room < ROOM_OCTETS:
        return [Sighting("disk", Outlook.WARN, said, "less than 1 GiB: say a --data folder with more room")]
    if seconds > SLOW_SECONDS:
        return [Sighting("disk", Outlook.WARN, said, "each message waits for one: say a --data folder on a quicker disk")]
    return [Sighting("disk", Outlook.OK, said)]


def clock(seeing: Seeing) -> list[Sighting]:
    """A clock that is wrong makes signatures and certificates invalid."""
    kept = seeing.eyes.is_clock_kept()
    try:
        offset = seeing.eyes.clock_offset(TIME_HOST)
    except OSError as error:
        if kept:
            return [Sighting("clock", Outlook.OK, "the kernel says that it is kept right")]
        fix = "apt install chrony" if kept is False else ""
        return [Sighting("clock", Outlook.UNKNOWN, f"{TIME_HOST} gives no answer ({error.strerror or error})", fix)]
    if abs(offset) > OFF_SECONDS:
        why = f"it is {abs(offset):.0f} s {'ahead' if offset > 0 else 'behind'}"
        return [Sighting("clock", Outlook.FAIL, why, "apt install chrony && chronyc makestep")]
    if kept is False:
        return [Sighting("clock", Outlook.WARN, "it is right now, and nobody keeps it so", "apt install chrony")]
    return [Sighting("clock", Outlook.OK, f"it differs by {abs(offset):.2f} s")]
