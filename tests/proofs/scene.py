"""A scene of the proof of power cuts: a server as it is configured, what goes wrong, and who sends meanwhile."""

from __future__ import annotations

import random
from pathlib import Path

from tests.proofs.clients import USERS, Clients
from tests.scenarios.support import Server
from tests.scenarios.test_reports import PLUGIN

__all__ = ["CONFIG", "SUBMISSION", "Scene", "prepared"]

CONFIG = """
hostname = "mx.example.org"
data = "{work}/disk/data"

[[listen]]
service = "mx"
endpoint = "tcp:{port}:interface=127.0.0.1"
tls = "none"

[accounts]
use = "file"
path = "{work}/accounts.toml"

[delivery]
use = "maildir"
path = "{work}/disk/mail/{user}"

[domain."example.org"]

[domain."example.org".aliases]
all = ["alice@example.org", "bob@example.org", "carol@example.org"]

[relay]
use = "elsewhere"
networks = ["127.0.0.0/8"]

[limits]
connections_per_network = 100
minimum_free_bytes = 0
memory_bytes = 100000

[queue]
retry = ["1s"]
"""
STRANGE = """
from twisted.internet.defer import succeed
from zope.interface import implementer

from mailserver.config import Options
from mailserver.interfaces import IComponentFactory, IDelivery
from mailserver.mail.answers import Delayed, Delivered, Failed
from mailserver.mail.reply import Reply


@implementer(IDelivery)
class Strange:
    \"\"\"Its first word about a message makes no sense, its second one does.\"\"\"

    stores = True

    def __init__(self):
        self.seen = set()

    async def deliver(self, envelope, content, destinations):
        first = envelope.id not in self.seen
        self.seen.add(envelope.id)
        return {one.index: self.outcome(envelope.id, first, one.recipient.address.local) for one in destinations}

    def outcome(self, id, first, user):
        if user == "gone":
            return Failed(Reply.of(550, "5.1.1", "Nobody of that name"), peer="mx.elsewhere.example", phase="RCPT")
        words = "a file \\udcff \\x00 of that name" if first else ""
        kinds = [Delivered(words), Delivered(None), Delayed(None, words), Failed("550 no reply"), Delayed(Reply.of(451, "4.3.0", "x"), 7), None, 5]
        return kinds[sum(id.encode()) % len(kinds)] if first else Delivered("at last")

    async def flush(self):
        pass


@implementer(IComponentFactory)
class StrangeFactory:
    name = "strange"
    summary = "Answers in strange ways."
    provides = IDelivery
    options = Options

    def build(self, options, services):
        return Strange()


strange = StrangeFactory()
"""
SUBMISSION = """
[[listen]]
service = "submission"
endpoint = "tcp:{subport}:interface=127.0.0.1"
tls = "starttls"

[lockout]
delay = 0
"""


START_SECONDS = 90.0  # as long as a slow machine may take


class Scene:
    """Faults that strace puts in, and what happens.  Sizes are bounded: a record takes some seconds, and some tens of megabytes."""

    inject: tuple[str, ...] = ()
    small: str = ""  # the size of a file system of its own for WORK/disk
    needs_root = False
    config = CONFIG
    clocks: tuple[str, ...] = ()  # by how much the clock is wrong after the cut: the first cut has the first
    users: tuple[str, ...] = USERS
    box = "mail/{user}"  # a user's Maildir, below WORK/disk
    pickup = "data/drop"

    def equip(self, server: Server, cut: int | None) -> None:
        """What the server needs besides, before each start: in the record (`cut` None), and on what that cut has left."""

    def owes_reports(self, cut: int) -> bool:
        """After this cut a 4yz reply goes on until the message expires."""
        return False

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        """Start the server, let the clients send, leave whatever stands."""
        server.start()
        clients.start(4, 25, sendmails=5)
        clients.wait()

    def boxes(self, work: Path) -> dict[str, Path]:
        """Where each user's mail stands."""
        return {user: work / "disk" / self.box.format(user=user) for user in self.users}


def prepared(work: Path, scene: Scene, cut: int | None = None) -> Server:
    """The scene's server in the folder `work`, which exists; not started."""
    server = Server(work, scene.config, tuple(f"{user}@example.org" for user in scene.users))
    server.mail = work / "disk" / "mail"
    server.start_seconds = START_SECONDS
    server.install_plugin("elsewhere_plugin", PLUGIN)
    server.install_plugin("strange_plugin", STRANGE)
    scene.equip(server, cut)
    return server
