"""Moving house, beside the real thing: Postfix is asked where its mail goes; large files, kills.

    python -m tests.proofs moving [--scene postfix|big|kills]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.moving.asked_postfix import asked, running
from tests.moving.postfix_houses import HOUSES

__all__ = ["SCENES"]

Found = tuple[dict[str, int], list[str]]


def postfix() -> Found:
    """What tests/moving/postfix_houses.py expects of each house, asked of the installed Postfix.  Takes root."""
    trips, wrong = 0, []
    for house in HOUSES:
        with tempfile.TemporaryDirectory(prefix="postfix-") as work, running(house, Path(work)) as folder:
            for trip, ends in zip(house.trips, asked(house, folder, house.trips), strict=True):
                trips += 1
                if ends != set(trip.ends):
                    wrong.append(f"{house.name}: {trip.sender} to {trip.recipient}: Postfix {sorted(ends)}, expected {sorted(trip.ends)}")
    return {"trips asked of Postfix": trips}, wrong


CONFIGURATION = """
hostname = "mail.example.org"
data = "data"
[[listen]]
service = "mx"
endpoint = "tcp:0:interface=127.0.0.1"
[accounts]
path = "accounts.toml"
[domain."example.org"]
"""
USER = "alice@example.org"
BIG = 2 << 30
MEMORY_KIB_MOST = 200 << 10
KILLS = 8
MESSAGES = 8000


def _house(work: Path) -> list[str]:
    (work / "data").mkdir(mode=0o700)
    (work / "m.toml").write_text(CONFIGURATION)
    (work / "accounts.toml").write_text(f'[account."{USER}"]\n')
    return ["/usr/bin/time", "-f", "%M", sys.executable, "-m", "mailserver.cli", "import"]


def big() -> Found:
    """An mbox file of 2 GiB goes through a few MiB of memory: each message arrives, and their octets with them."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mbox-") as folder:
        work = Path(folder)
        command, file, count = _house(work), work / "big.mbox", 0
        with file.open("wb") as out:
            line = b"x" * 75 + b"\n"
            while out.tell() < BIG:
                size = (100, 1_000, 4_000_000)[count % 3 if count % 300 == 0 else count % 2]
                out.write(b"From b@example.net Thu Jan  2 15:04:05 2020\nSubject: %d\n\n" % count + line * (size // 76 * 40 or 1) + b"\n")
                count += 1
        words = [*command, "mbox", str(file), USER, "--config", str(work / "m.toml"), "--json"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=3600, check=False)
        told, peak = json.loads(done.stdout), int(done.stderr.split()[-1])
        if told["imported"] != count or done.returncode:
            wrong.append(f"{told['imported']} of {count} messages were imported: {done.stderr[-300:]}")
        if peak > MEMORY_KIB_MOST:
            wrong.append(f"{peak} KiB of memory were used")
        return {"messages of an mbox file of 2 GiB": count, "KiB of memory at most": peak}, wrong


def kills() -> Found:
    """An import that is killed again and again: the next one completes it, and no message comes twice."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        work = Path(folder)
        command, old, killed = _house(work), work / "old", 0
        for part in ("cur", "new", "tmp"):
            (old / part).mkdir(parents=True)
        for n in range(MESSAGES):
            (old / "cur" / f"{n}.a:2,S").write_text(f"Subject: {n}\n\nHello\n")
        words = [*command[3:], "maildir", str(old), USER, "--config", str(work / "m.toml"), "--json"]
        for n in range(KILLS):
            running = subprocess.Popen(words, stdout=subprocess.DEVNULL)
            book, ends = work / "data/mail/example.org/alice/mailserver-imported", time.monotonic() + 60
            grown = book.stat().st_size if book.exists() else 0
            while running.poll() is None and time.monotonic() < ends and not (book.exists() and book.stat().st_size > grown):
                time.sleep(0.001 * n)
            killed += running.poll() is None
            running.kill()
            running.wait()
        told = json.loads(subprocess.run(words, capture_output=True, text=True, timeout=600, check=True).stdout)
        subjects = Counter(path.read_text().partition("\n")[0] for path in (work / "data/mail/example.org/alice/cur").iterdir())
        if len(subjects) != MESSAGES or max(subjects.values()) != 1:
            wrong.append(f"{len(subjects)} of {MESSAGES} messages are there, one of them {max(subjects.values())} times; {told}")
        return {"imports killed": killed, "messages": MESSAGES}, wrong


SCENES: Mapping[str, Callable[[], Found]] = {"postfix": postfix, "big": big, "kills": kills}
