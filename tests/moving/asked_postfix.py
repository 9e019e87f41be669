"""What Postfix itself does with mail: a run of the installed one in folders of its own, whose last step is written down.

The services that would deliver or send are replaced by a pipe that notes transport, next hop and recipient; all that decides
(pickup, cleanup, trivial-rewrite, qmgr, local's aliases) is Postfix's own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.moving.postfix_houses import PostfixHouse, Trip, lay_out

__all__ = ["asked", "running"]

NOTED = ("smtp", "relay", "error", "retry", "virtual", "lmtp")
SECONDS = 60
PROGRAM = """#!/bin/sh
d="$1"; shift
f=$(mktemp "$d/tmp/XXXXXXXX") && { printf '%s\\n' "$@"; sed -n 's/^X-Trip: //p' | head -1; } > "$f" && mv "$f" "$d/new/"
"""


@contextmanager
def running(house: PostfixHouse, work: Path) -> Iterator[Path]:
    """Postfix with this configuration, in `work`; gives its folder of main.cf."""
    folder = lay_out(house, work)
    for below in ("queue", "data", "noted/tmp", "noted/new"):
        (work / below).mkdir(parents=True)
    os.chmod(work, 0o755)
    shutil.chown(work / "data", "postfix")
    for below in ("tmp", "new"):
        os.chmod(work / "noted" / below, 0o1777)
    (work / "note").write_text(PROGRAM)
    os.chmod(work / "note", 0o755)
    main = re.sub(r"/etc/", f"{work}/etc/", house.main)
    main = re.sub(r"(?m)^(alias_database|smtpd_tls_|home_mailbox|queue_directory).*\n", "", main)
    main += (
        f"\nqueue_directory = {work}/queue\ndata_directory = {work}/data\nmaillog_file = {work}/postfix.log\n"
        f"maillog_file_prefixes = {work}\nmailbox_transport = note-local:\ninet_interfaces = loopback-only\n"
        "import_environment = MAIL_CONFIG\nmaximal_queue_lifetime = 1h\nnotify_classes =\nin_flow_delay = 0\n"
        "default_destination_recipient_limit = 1\nvirtual_destination_recipient_limit = 1\n"
        f"syslog_facility = local1\nlocal_recipient_maps =\n"
    )
    (folder / "main.cf").write_text(main)
    (folder / "master.cf").write_text(_master(house.master, work))
    for spec in re.findall(r"(hash|btree):(/[^\s,]+)", main):
        command = "postalias" if spec[1].endswith("/aliases") else "postmap"
        subprocess.run([command, "-c", str(folder), ":".join(spec)], check=True, capture_output=True, timeout=SECONDS)
    postfix = ["postfix", "-c", str(folder)]
    subprocess.run([*postfix, "start"], check=True, capture_output=True, timeout=SECONDS)
    try:
        yield folder
    finally:
        subprocess.run([*postfix, "stop"], check=False, capture_output=True, timeout=SECONDS)


def _master(text: str, work: Path) -> str:
    """Without listeners and chroot; what would deliver notes instead."""
    joined = re.sub(r"\n[ \t]+", " ", text)
    rows = []
    for line in joined.splitlines():
        name, kind = line.split()[:2]
        if kind == "inet" or name in ("maildrop", "bounce", "defer", "trace"):
            continue
        rows.append(_note(name, work) if name in NOTED and kind == "unix" else re.sub(r"(unix\S*\s+\S+\s+\S+\s+)y", r"\1n", line))
    rows += [f"{name} unix - - n - 0 bounce" for name in ("bounce", "defer", "trace")]
    return "\n".join([*rows, _note("note-local", work)]) + "\n"


def _note(name: str, work: Path) -> str:
    words = f"{name} ${{nexthop}} ${{sender}} ${{recipient}}"
    return f"{name} unix - n n - - pipe\n  user=nobody null_sender=<> argv={work}/note {work}/noted {words}"


def asked(house: PostfixHouse, folder: Path, trips: Sequence[Trip]) -> list[set[str]]:
    """Where each trip ended.  Each mail is marked, and waited for."""
    work = folder.parent.parent
    for number, trip in enumerate(trips):
        mail = f"X-Trip: {number}\nSubject: a trip\n\nHello\n"
        command = ["/usr/sbin/sendmail", "-C", str(folder), "-f", trip.sender, trip.recipient]
        subprocess.run(command, input=mail, text=True, check=True, capture_output=True, timeout=SECONDS)
    wanted = {n: len(trip.ends) for n, trip in enumerate(trips)}
    found: list[set[str]] = [set() for _ in trips]
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        for path in sorted((work / "noted" / "new").iterdir()):
            lines = path.read_text().splitlines()
            path.unlink()
            if len(lines) < 5 or not lines[4].isdigit() or lines[3].startswith("double-bounce"):
                continue
            found[int(lines[4])].add(_end(house, lines, folder))
        if all(len(found[n]) >= count for n, count in wanted.items()):
            break
        time.sleep(0.2)
    return found


def _is_mailbox(user: str, folder: Path) -> bool:
    """As smtpd asks before it takes mail for a virtual mailbox domain."""
    show = ["postconf", "-c", str(folder), "-hx", "virtual_mailbox_maps"]
    maps = subprocess.run(show, check=True, capture_output=True, text=True, timeout=SECONDS).stdout.strip()
    return subprocess.run(["postmap", "-c", str(folder), "-q", user, maps], check=False, capture_output=True, timeout=SECONDS).returncode == 0


def _end(house: PostfixHouse, lines: Sequence[str], folder: Path) -> str:
    transport, hop, _, recipient, _ = lines
    local, _, domain = recipient.lower().partition("@")
    user = f"{re.split('[+-]', local)[0]}@{domain}"
    if transport in ("virtual", "lmtp"):
        return f"local {user}" if _is_mailbox(user, folder) else "refused"
    if transport == "note-local":
        return f"local {user.partition('@')[0]}@{house.home}"
    if transport in ("error", "retry"):
        return "refused"
    match = re.fullmatch(r"\[([^\]]+)\](?::(\d+))?|([^:\[]+)(?::(\d+))?", hop)
    assert match is not None, hop
    host, port = match[1] or match[3], match[2] or match[4] or "25"
    return f"{'mx' if host == domain else host}:{port} {local}@{domain}"
