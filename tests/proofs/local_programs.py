"""The pickup folder in a scene: recipients who hear 4yz, and what else users of the host put there."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

from mailserver.pickup.file_format import pickup_name
from tests.proofs.clients import USERS, Clients
from tests.proofs.scene import CONFIG, Scene
from tests.proofs.small_processes import give_up_root
from tests.scenarios.support import Server
from tests.scenarios.test_unprivileged import python_for_everybody

__all__ = ["LocalPrograms"]

OTHER_USER = 54398
HESITANT = """
from zope.interface import implementer

import mailserver.pickup.pickup
from mailserver.config import Options
from mailserver.interfaces import IComponentFactory, IRecipientFilter
from mailserver.mail.answers import Defer, Pass

mailserver.pickup.pickup.AGAIN_SECONDS = 1.0


@implementer(IRecipientFilter)
class Hesitant:
    async def judge_recipient(self, envelope, recipient):
        return Defer("not yet") if recipient.address.local == "late" else Pass()


@implementer(IComponentFactory)
class HesitantFactory:
    name = "hesitant"
    summary = "Says 4yz to one recipient."
    provides = IRecipientFilter
    options = Options

    def build(self, options, services):
        return Hesitant()


hesitant = HesitantFactory()
"""
FILTER = '\n[[filter]]\nuse = "hesitant"\n'
SOON = '\nexpire = "1s"\nwarn = "1s"\n'  # behind [queue]
STRAY = b'{"version": 1, "sender": "stray@example.org", "recipients": ["stray@example.org"]}\nSubject: stray\r\n\r\n'
GROWING = """
import os, sys, time
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
os.write(file, sys.argv[2].encode().decode("unicode_escape").encode())
for _ in range(25):
    os.write(file, b"more and more\\r\\n" * 4000)
    time.sleep(0.1)
os.fsync(file)
"""
SPARSE = """
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
os.write(file, sys.argv[2].encode().decode("unicode_escape").encode())
os.ftruncate(file, 1 << 40)
"""
UNREADABLE = """
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0)
os.write(file, sys.argv[2].encode().decode("unicode_escape").encode())
"""
FOLDER = "import os, sys; os.mkdir(sys.argv[1])"
PIPE = "import os, sys; os.mkfifo(sys.argv[1])"
NOISE = "import os, sys; open(sys.argv[1], 'wb').write(os.urandom(70000))"


class LocalPrograms(Scene):
    """Local programs hand mail over, half of it with one recipient who hears 4yz; a user of the host puts all else there that he can.

    As root the server gives its rights up, and that user is another one.  After every other cut the 4yz ends, else it goes on.
    """

    users = (*USERS, "dave", "stray")
    pickup = "drop"

    def __init__(self) -> None:
        self.config = CONFIG.replace(
            'carol@example.org"]\n', 'carol@example.org"]\nlate = ["dave@example.org"]\n\n[pickup]\npath = "{work}/disk/drop"\nusers = "all"\n'
        )

    def equip(self, server: Server, cut: int | None) -> None:
        server.install_plugin("hesitant_plugin", HESITANT)
        waits = cut is None or self.owes_reports(cut)
        server.configure(self.config + (SOON if cut is not None and waits else "") + (FILTER if waits else ""))
        if os.geteuid() == 0:
            (server.work / "disk").mkdir(exist_ok=True)
            give_up_root(server)
            if cut is not None:  # the record knows no modes; the server sees to the folder's own
                server.work.joinpath("disk").chmod(0o711)

    def owes_reports(self, cut: int) -> bool:
        return cut % 2 == 1

    def boxes(self, work: Path) -> dict[str, Path]:
        boxes = super().boxes(work)
        del boxes["stray"]  # what is sent to him is no letter of ours
        return boxes

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        server.start()
        clients.late = {"dave": "late@example.org"}
        other = OTHER_USER if os.geteuid() == 0 else None
        clients.start(2, 40, sendmails=10)
        clients.start_program("o", 10, user=other)
        hand = threading.Thread(target=self._litter, args=(server.work / "disk" / "drop", other, chance), daemon=True)
        hand.start()
        clients.wait()
        hand.join(60)

    def _litter(self, pickup: Path, user: int | None, chance: random.Random) -> None:
        python = python_for_everybody()[0] if user is not None else sys.executable
        rights = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        kinds = [GROWING, SPARSE, UNREADABLE, FOLDER, PIPE, NOISE] * 2
        chance.shuffle(kinds)
        running = []
        for number, kind in enumerate(kinds):
            name = pickup_name(number, chance.randbytes(16)) if number % 3 else f"x{number}"
            text = STRAY.decode().encode("unicode_escape").decode()
            command = [python, "-S", "-c", kind, str(pickup / name), text]
            running.append(subprocess.Popen(command, cwd="/", stderr=subprocess.DEVNULL, **rights))
            time.sleep(chance.uniform(0.05, 0.3))
        for program in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(30)
