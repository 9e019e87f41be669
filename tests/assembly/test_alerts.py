"""Each alert of contrib/ fires where its cause is made: the figures before and after are a server's own, promtool judges them.

What a cause has brought is taken for what each ten seconds bring, for two hours: the rules want what lasts.
"""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.protocols.basic import LineReceiver
from zope.interface import implementer

from mailserver.config import Options
from mailserver.interfaces import Candidate, IComponentFactory, IContentFilter
from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Mailbox, Remote
from mailserver.mail.content import Content
from mailserver.mail.dns_records import LookupFailed
from mailserver.mail.envelope import Envelope, MailParameters, Peer, Recipient
from mailserver.mail.ids import IdSource
from mailserver.mail.parcel import Destination
from mailserver.relay.conclusions import HandshakeFacts, TLSSession
from mailserver.relay.security import Demand, DemandedBy, TLSMode, TLSOutcome
from tests.assembly.test_monitoring import LISTENER, MonitoringCase
from tests.ports import free_port
from tests.requires import require_tool
from tests.tls.authority import Authority

RULES = Path(__file__).parents[2] / "contrib" / "prometheus" / "mailserver.rules.yml"
ASKED = set(re.findall(r"mailserver_\w+", RULES.read_text()))
ALL = set(re.findall(r"alert: (\w+)", RULES.read_text()))
SAMPLES = 720  # each ten seconds, for two hours
ADDRESS = Address.parse("alice@example.org")
LETTER = Content.of(b"Subject: x\r\n\r\nhello\r\n")
OLD_SECONDS = 5 * 3600
CONFIGURATION = """
hostname = "mx.example.org"
data = "{work}/data"
[[listen]]
service = "mx"
endpoint = "tcp:0:interface=127.0.0.1"
[[listen]]
service = "submission"
endpoint = "tcp:0:interface=127.0.0.1:backlog=50"
tls = "starttls"
%s
[authentication]
without_tls = "loopback"
[lockout]
delay = 0
[tls]
certificate = "{work}/server.pem"
key = "{work}/server.key"
[accounts]
use = "file"
path = "{work}/accounts.toml"
[delivery]
use = "maildir"
path = "{work}/mail/{user}"
[relay]
use = "mx"
[dns]
servers = ["127.0.0.1:{dns}"]
[log]
path = "{work}/log"
[domain."example.org"]
[[filter]]
use = "breaks"
"""


@implementer(IContentFilter)
class Breaks:
    async def judge_content(self, envelope: Any, content: Any) -> Any:
        raise RuntimeError("it is broken")


@implementer(IComponentFactory)
class BreaksFactory:
    api_version = "1.0"
    name = "breaks"
    summary = "Of a test."
    provides = IContentFilter
    options = Options

    def build(self, options: Any, services: Any) -> Any:
        return Breaks()


class Later(LineReceiver):
    """A host that takes nothing now."""

    def connectionMade(self) -> None:
        self.sendLine(b"220 aspmx.l.google.com")

    def lineReceived(self, line: bytes) -> None:
        self.sendLine(b"250 aspmx.l.google.com" if line[:4].upper() in (b"EHLO", b"RSET") else b"450 4.2.1 later")
        if line[:4].upper() == b"QUIT":
            self.transport.loseConnection()


class Alerts(MonitoringCase):
    accounts = ("alice@example.org",)

    async def begun_server(self) -> Any:
        Authority().leaf("mx.example.org", days=(-1, 5)).write(str(self.work))
        (self.work / "mail").mkdir()
        (self.work / "mail" / "alice").write_text("no folder")
        text = (CONFIGURATION % LISTENER).replace("{dns}", str(free_port()))
        return await self.serve(text, components=[BreaksFactory()])

    async def test_each_fires_where_its_cause_is_made(self) -> None:
        service = self.service = await self.begun_server()
        self.server = server = service._server
        self.cases: list[str] = []
        fired: set[str] = set()
        self.patch(server.processes, "missing", lambda: {"courier": "", "web": ""})
        await self.case("nothing", {"MailserverCertificateEnds"}, None)
        for name, alerts, cause in (
            ("no room on the disk", {"MailserverNotReady", "MailserverDiskAlmostFull"}, self.no_room),
            ("a filter that breaks", {"MailserverFilterFails", "MailserverComponentGivenUp"}, self.broken_filter),
            ("a disk that is slow", {"MailserverCommitsAreSlow"}, self.slow_disk),
            ("mail that waits", {"MailserverQueueGrows", "MailserverMailIsOld"}, self.waiting_mail),
            ("an operator that defers", {"MailserverProviderDefers"}, self.deferring_host),
            ("TLSA that does not match", {"MailserverTLSDemandsFail"}, self.dane_failures),
            ("name servers that are silent", {"MailserverDNSFails"}, self.no_name_server),
            ("somebody who guesses", {"MailserverLoginsFail"}, self.guesses),
            ("a reactor that is held", {"MailserverReactorIsHeld"}, self.held_reactor),
            ("a log that is too slow", {"MailserverStepsAreLost"}, self.lost_steps),
            ("no new certificate from the CA", {"MailserverCertificateLate"}, self.late_certificate),
            ("a process that is missing", {"MailserverProcessMissing"}, self.missing_process),
        ):
            await self.case(name, alerts, cause)
            fired |= alerts
        self.cases.append(case_of("a server that is away", ['{series: \'up{job="mailserver",instance="a"}\', values: "0x720"}'], {"MailserverDown"}))
        self.assertEqual(fired | {"MailserverDown", "MailserverCertificateEnds"}, ALL)
        path = self.work / "alerts.test.yml"
        path.write_text(f"rule_files: [{RULES}]\nevaluation_interval: 1m\ntests:\n" + "".join(self.cases))
        done = subprocess.run([require_tool("promtool"), "test", "rules", str(path)], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr)

    async def case(self, name: str, alerts: set[str], cause: Any) -> None:
        """The figures before and after; where there is no cause, no other alert is there."""
        before = await self.fresh_figures()
        undo = None if cause is None else await cause()
        after = await self.fresh_figures()
        if undo is not None:
            undo()
        self.cases.append(case_of(name, series_of(before, after), alerts, alone=cause is None))

    async def fresh_figures(self) -> dict[str, float]:
        self.service._in_force.monitoring._states_until = 0.0  # the queue is looked at anew
        return await self.figures(self.service)

    async def get(self, service: Any, path: str, number: int = 2, **headers: str) -> tuple[int, str]:
        return await super().get(service, path, number, **headers)

    # --- causes; each may return what ends it ---

    async def no_room(self) -> Any:
        room = self.server.queue.room
        before, room.minimum_free_bytes = room.minimum_free_bytes, 1 << 62

        def undo() -> None:
            room.minimum_free_bytes, room._shut_until = before, 0.0

        return undo

    async def broken_filter(self) -> Any:
        def many(wire: Any) -> list[int]:
            wire.command("EHLO x")
            return [wire.dialogue("MAIL FROM:<a@b.example>", "RCPT TO:<alice@example.org>", "DATA", b"Subject: x\r\n\r\nx\r\n.") for _ in range(3)]

        await gatherResults([Deferred.fromCoroutine(self.talk(self.service, many)) for _ in range(7)])
        self.assertIn("open", str(self.server.register.described()))
        return None

    def commit(self, seconds_ago: float = 0.0) -> Any:
        moment = time.time() - seconds_ago
        self.source = getattr(self, "source", None) or IdSource(lambda: moment)
        id = self.source.next()
        envelope = Envelope(id, Peer("127.0.0.1", 0, "report", ""), None, (Recipient(ADDRESS),), moment, MailParameters())
        mailbox = Mailbox("alice", "example.org")
        return self.server.queue.commit(envelope, LETTER, (Destination(0, envelope.recipients[0], Local(ADDRESS, mailbox)),))

    async def slow_disk(self) -> Any:
        writer = self.server.queue._writer
        add = writer._add

        def slowly(batch: Any) -> None:
            time.sleep(1.2)
            add(batch)

        writer._add = slowly
        await self.commit(OLD_SECONDS)

        def undo() -> None:
            writer._add = add

        return undo

    async def waiting_mail(self) -> Any:
        await gatherResults([self.commit(OLD_SECONDS) for _ in range(1001)])
        counts = self.server.queue.counts
        for _ in range(100):
            if counts.deferred:
                break
            await deferLater(self.server.reactor, 0.1, lambda: None)
        return None

    async def deferring_host(self) -> Any:
        port = self.server.reactor.listenTCP(0, Factory.forProtocol(Later), interface="127.0.0.1")  # type: ignore[arg-type]
        self.addCleanup(port.stopListening)
        host = Candidate("aspmx.l.google.com", ("127.0.0.1",), port.getHost().port, 0)
        to = [Address.parse(f"u{n}@gmail.example") for n in range(4)]
        envelope = Envelope("1K0WZ000000000M1", Peer("127.0.0.1", 0, "mx", ""), ADDRESS, tuple(map(Recipient, to)), time.time(), MailParameters())
        destinations = tuple([Destination(n, Recipient(one), Remote(one)) for n, one in enumerate(to)])
        outcomes = await self.server.relay.deliver_to([host], envelope, LETTER, destinations)
        self.assertEqual({str(one.reply)[:3] for one in outcomes.values()}, {"450"})
        return None

    async def dane_failures(self) -> Any:
        demand = Demand(TLSMode.DANE, source=DemandedBy.DANE)
        session = TLSSession("b.example", demand, "mx.b.example", "192.0.2.1", "", TLSOutcome.TLSA_INVALID, "", HandshakeFacts(), time.time())
        for told in self.server.relay.connections.tls_seen:
            told(session)
        return None

    async def no_name_server(self) -> Any:
        for n in range(3):
            try:
                await self.server.resolver.query(f"{n}.example", "A")
            except LookupFailed:
                continue
            self.fail("somebody has answered")
        return None

    async def guesses(self) -> Any:
        lines = ["EHLO x", *["AUTH PLAIN AGFsaWNlQGV4YW1wbGUub3JnAHg="] * 3]
        await gatherResults([Deferred.fromCoroutine(self.say(self.service, *lines, number=1)) for _ in range(4)])
        return None

    async def held_reactor(self) -> Any:
        for _ in range(2):
            await deferLater(self.server.reactor, 0.05, lambda: None)
            time.sleep(0.9)
        await deferLater(self.server.reactor, 0.3, lambda: None)
        return None

    async def lost_steps(self) -> Any:
        steps, most = self.server.steps, self.server.steps._waiting_max
        steps._waiting_max = 0
        steps.note("1K0WZ000000000M1", "lost")
        steps._waiting_max = most
        return None

    async def late_certificate(self) -> Any:
        self.patch(self.server.acme, "figures", lambda: {"": {"late": 1}})
        return None

    async def missing_process(self) -> Any:
        self.patch(self.server.processes, "missing", lambda: {"courier": "", "web": "it has died"})
        return None


def series_of(before: dict[str, float], after: dict[str, float]) -> list[str]:
    """As promtool wants them: a counter grows on as it has grown."""
    found = ['{series: \'up{job="mailserver",instance="a"}\', values: "1x720"}']
    for name, value in after.items():
        bare, brace, labels = name.partition("{")
        if bare not in ASKED:
            continue
        label_text = ",".join(['instance="a"', *([labels.rstrip("}")] if brace else [])])
        grows = bare.endswith(("_total", "_bucket", "_sum", "_count")) or bare == "mailserver_queue_messages"
        growth = max(0.0, value - before.get(name, 0.0)) if grows else 0.0
        found.append(f"{{series: '{bare}{{{label_text}}}', values: \"{value!r}+{growth!r}x{SAMPLES}\"}}")
    return found


def case_of(name: str, series: list[str], alerts: set[str], *, alone: bool = False) -> str:
    wanted = 'alertstate="firing"' if alone else f'alertstate="firing",alertname=~"{"|".join(sorted(alerts))}"'
    question = f"count(count by (alertname) (ALERTS{{{wanted}}}))"
    lines = "\n".join([f"      - {one}" for one in series])
    return (
        f"  - name: {name}\n    interval: 10s\n    input_series:\n{lines}\n    promql_expr_test:\n"
        f"      - {{expr: '{question}', eval_time: 110m, exp_samples: [{{labels: '{{}}', value: {len(alerts)}}}]}}\n"
    )
