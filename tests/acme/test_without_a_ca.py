"""Around the CA: what the configuration may say, what is told to people, what is loaded, what strangers hear on our ports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.acme.allowance import TimeAllowance
from mailserver.acme.answers import ByWebListener
from mailserver.acme.challenge import ShownChallenge
from mailserver.acme.own_listeners import CONNECTIONS_MOST, HTTPListener
from mailserver.acme.progress import CertificateProgress, read_progress, write_progress
from mailserver.acme.schedule import HeldCertificate, due_at
from mailserver.acme.service import AcmeService
from mailserver.acme.visit import Visited
from mailserver.acme.web_names import names_most, names_that_lead_here, wanted_web_names
from mailserver.assembly.acme import _Joined, acme_settings
from mailserver.config import ConfigurationError, parse
from mailserver.config.acme_endpoints import own_endpoints
from mailserver.mail.dns_records import Answer, LookupFailed
from mailserver.tls.issued import next_key, write_issued
from mailserver.web.channel import REQUEST_SECONDS
from tests.cli.support import CONFIGURATION, CommandCase
from tests.tls.authority import Authority
from tests.web.test_channel import Transport

MORE = '[[listen]]\nservice = "mx"\nendpoint = "tcp:2525"\ntls = "starttls"\n'


def configuration(text: str) -> Any:
    return parse(CONFIGURATION + MORE + text, file="x", directory="/")


class Settings(SynchronousTestCase):
    def test_one_line_is_enough_and_a_table_says_more(self) -> None:
        self.assertIsNone(acme_settings(configuration("")))
        found = acme_settings(configuration("[tls]\nacme = true\n"))
        assert found is not None
        self.assertEqual(found.mail_names, ("mail.example.org",))
        self.assertEqual(found.authorities[0].directory, "https://acme-v02.api.letsencrypt.org/directory")
        self.assertEqual((found.contact, found.endpoints), ("postmaster@example.org", ("tcp6:80", "tcp:80")))
        table = '[acme]\nnames = ["imap.example.org", "mail.example.org"]\nchallenge = "tls-alpn-01"\nsecond = "https://ca.example/"\n'
        found = acme_settings(configuration(table))
        assert found is not None
        self.assertEqual(found.mail_names, ("mail.example.org", "imap.example.org"))
        self.assertEqual((len(found.authorities), found.endpoints), (2, ("tcp6:443", "tcp:443")))

    def test_a_web_listener_or_a_folder_takes_the_place_of_our_own(self) -> None:
        web = '[[listen]]\nservice = "web"\nendpoint = "tcp:80"\n'
        self.assertEqual(own_endpoints(configuration(web + "[acme]\n")), ())
        self.assertEqual(own_endpoints(configuration(web + '[acme]\nendpoint = "tcp:8080"\n')), ("tcp:8080",))
        self.assertEqual(own_endpoints(configuration(web + '[acme]\nchallenge = "tls-alpn-01"\n')), ("tcp6:443", "tcp:443"))
        self.assertEqual(own_endpoints(configuration('[acme]\nfolder = "/var/www"\n')), ())

    def test_what_does_not_fit_together_is_a_fault_with_a_reason(self) -> None:
        for text, words in (
            ('directory = "http://ca.example/"', "https:// URL"), ('directory = "https://ca.example/ x"', "https:// URL"),
            ('eab_kid = "x"', "go together"), ('second_eab_kid = "x"', "go together"),
            ('second = "https://acme-v02.api.letsencrypt.org/directory"', "same CA"),
            ('challenge = "dns-01"', "needs dns_key"), ('dns_key = "x"', "go with"), ('folder = "x"\nendpoint = "tcp:80"', "folder goes"),
            ('profile = "a b"', ""), ('names = ["*.example.org"]', ""),
        ):  # fmt: skip
            with self.assertRaises(ConfigurationError, msg=text) as caught:
                configuration(f"[acme]\n{text}\n")
            self.assertIn(words, str(caught.exception))
        for text in ('[tls]\nacme = true\ncertificate = "x"\nkey = "y"\n', '[tls]\ncertificate = "x"\nkey = "y"\n[acme]\n'):
            with self.assertRaises(ConfigurationError):
                configuration(text)


class Commands(CommandCase):
    def test_check_names_what_keeps_a_certificate_away(self) -> None:
        self.configure(CONFIGURATION + MORE + '[acme]\nfolder = "nowhere"\nca_file = "roots.pem"\neab_kid = "x"\neab_key_file = "y"\n')
        said = self.command("check")
        self.assertEqual(said.code, 1)
        for words in ("acme.folder: ", "is no folder", "acme.ca_file: ", "is not there", "acme.eab_key_file: cannot be used"):
            self.assertIn(words, said.out)
        self.configure(CONFIGURATION + MORE.replace("2525", "80") + "[acme]\n")
        self.assertIn("is where the server has to listen while the CA looks", self.command("check").out)
        self.configure(CONFIGURATION + "[acme]\n")
        self.assertIn("so no certificate is got", self.command("check").out)

    def test_a_late_one_is_told_by_check_and_list_and_its_exit_code(self) -> None:
        self.configure(CONFIGURATION + MORE + "[acme]\n")
        said = self.command("certificate", "list")
        self.assertEqual((said.code, said.out), (0, "There is none yet.\n"))
        keys = str(self.data) + "-keys"
        write_progress(keys, "mail", CertificateProgress(failures=4, failing_since=1.0, tried_at=2.0, error="nobody \x1b[31mis there"))
        said = self.command("certificate", "list")
        self.assertEqual(said.code, 1)
        self.assertIn("mail: late", said.out)
        self.assertIn("4 times, last 1970-01-01 00:00:02 UTC: nobody ?[31mis there", said.out)
        self.assertIn("acme: the certificate mail is late", self.command("check").out)
        self.assertEqual(self.command("certificate", "renew").code, 69)  # no server runs
        self.configure(CONFIGURATION)
        self.assertIn("no certificate comes from a CA", self.command("certificate", "renew").err)


class OnTheDisk(SynchronousTestCase):
    def test_what_is_damaged_is_begun_anew_and_each_good_part_is_kept(self) -> None:
        folder = self.mktemp()
        write_progress(folder, "mail", CertificateProgress(failures=3, error="x", left_out={"a.example": 5.0}))
        path = f"{folder}/acme/mail.json"
        self.assertEqual(read_progress(folder, "mail").failures, 3)
        for octets in (b"", b"\xff\xfe", b"[]", b"7", b"[" * 100_000, b'{"failures": "x", "window": [], "order": 7}'):
            with open(path, "wb") as file:
                file.write(octets)
            self.assertEqual(read_progress(folder, "mail"), CertificateProgress(), octets[:20])
        with open(path, "wb") as file:
            file.write(b'{"failures": 2, "failing_since": 7, "error": 7, "left_out": {"a": "b", "c": 1}, "window": {"start": "x"}, "issued": [1, [2.0, "a"]]}')
        found = read_progress(folder, "mail")
        self.assertEqual((found.failures, found.failing_since, found.error, found.left_out), (2, 7.0, "", {"c": 1.0}))
        self.assertEqual((found.window, found.issued), ({}, [[2.0, "a"]]))

    def test_no_time_that_was_kept_is_believed_beyond_its_bound(self) -> None:
        held = HeldCertificate("1", 0.0, 90 * 86400.0, ("a",))
        self.assertEqual(due_at(None, CertificateProgress(not_before=1e12), ("a",), 1000.0, 0.5), 1000.0)
        nonsense = CertificateProgress(window={"serial": "1", "start": 1e12, "end": 2e12, "chosen": 1.5e12})
        self.assertLess(due_at(held, nonsense, ("a",), 0.0, 0.5), 90 * 86400.0)


class Loaded(SynchronousTestCase):
    def test_a_server_without_a_ca_and_a_web_listener_loads_nothing_of_either(self) -> None:
        program = (
            "import sys, mailserver.service, mailserver.assembly.acme, mailserver.assembly.web_service\n"
            "web = {'twisted.web.server', *['mailserver.web.' + one for one in ('answers', 'certificates', 'channel', 'process')]}\n"
            "unused = {*web, 'mailserver.acme.visit', 'mailserver.acme.web_names'}\n"
            "libraries = ('acme', 'josepy', 'requests', 'urllib3')\n"
            "sys.exit(' '.join(m for m in sys.modules if m.split('.')[0] in libraries or m in unused) or 0)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class Listener(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.factories = Clock(), []

        def listen(endpoint: str, factory: Any) -> Deferred[Any]:
            if endpoint == "tcp6:80":
                raise OSError("no IPv6 here")
            self.factories.append(factory)
            port: Any = type("Port", (), {"stopListening": lambda _: self.factories.clear()})()
            return succeed(port)

        self.listener = HTTPListener(("tcp6:80", "tcp:80"), listen, self.clock)
        self.challenge = ShownChallenge("http-01", "mail.example.org", "t" * 43, "t.thumbprint")
        self.successResultOf(Deferred.fromCoroutine(self.listener.show([self.challenge])))

    def connect(self) -> tuple[Any, Transport]:
        protocol, transport = self.factories[0].buildProtocol(None), Transport()
        protocol.makeConnection(transport)
        return protocol, transport

    def asked(self, *pieces: bytes) -> bytes:
        protocol, transport = self.connect()
        for piece in pieces:
            protocol.dataReceived(piece)
        found: bytes = transport.value()
        return re.sub(rb"\r\nDate: [^\r]*", b"", found)

    def test_it_shows_what_the_ca_looks_for_in_any_pieces_and_nothing_else(self) -> None:
        path = b"/.well-known/acme-challenge/" + b"t" * 43
        whole = b"GET " + path + b" HTTP/1.1\r\nHost: mail.example.org\r\n\r\n"
        self.assertTrue(self.asked(whole).endswith(b"\r\n\r\nt.thumbprint"))
        self.assertEqual(self.asked(*[whole[n : n + 1] for n in range(len(whole))]), self.asked(whole))
        for other in (path + b"x", b"/", b"/.well-known/acme-challenge/../../etc/passwd", b"*", b""):
            self.assertRegex(self.asked(whole.replace(path, other)), rb"^HTTP/1\.1 40[04] ")
        self.assertIn(b"404", self.asked(whole.replace(b"GET", b"POST")))
        self.assertTrue(self.asked(whole.replace(b"mail.", b"another.")).endswith(b"\r\n\r\nt.thumbprint"))
        self.assertNotIn(b" 200 ", self.asked(b"x" * 20_000))

    def test_connections_are_bounded_in_number_and_time_and_the_port_goes_with_the_last_challenge(self) -> None:
        connections = [self.connect() for _ in range(CONNECTIONS_MOST + 1)]
        transports = [transport for _, transport in connections]
        self.assertEqual([one.aborted for one in transports], [True] + [False] * CONNECTIONS_MOST)  # the oldest makes room
        self.clock.advance(REQUEST_SECONDS + 1)
        self.assertTrue(all(one.aborted or one.disconnecting for one in transports))
        for protocol, _ in connections:
            protocol.connectionLost()
        last = self.connect()[1]
        self.successResultOf(Deferred.fromCoroutine(self.listener.withdraw([self.challenge])))
        self.assertEqual((self.factories, last.disconnecting), ([], True))


class WebNames(SynchronousTestCase):
    def test_names_that_lead_here_and_those_that_did_while_nobody_can_tell(self) -> None:
        table = {"mail.example.org": ["192.0.2.1"], "mta-sts.example.org": ["192.0.2.1"], "autoconfig.example.org": ["198.51.100.7"]}

        async def query(name: str, type: str) -> Answer:
            if name.startswith("autodiscover"):
                raise LookupFailed("no answer")
            return Answer(tuple(table.get(name, ())) if type == "A" else ())

        names = wanted_web_names("mail.example.org", ["example.org"])
        self.assertEqual(names[3:], ["mail.example.org", "example.org", "ua-auto-config.example.org"])
        names = names[:3]
        for known, wanted in ((frozenset(), names[:1]), (frozenset(names), [names[0], names[2]])):
            found = names_that_lead_here(names, "mail.example.org", (), query, known)
            self.assertEqual(self.successResultOf(Deferred.fromCoroutine(found)), wanted)
        self.assertEqual((names_most(""), names_most("shortlived")), (100, 25))

    def test_a_server_that_begins_while_the_dns_is_silent_keeps_the_names_that_its_certificate_has(self) -> None:
        keys, issued = os.path.abspath(self.mktemp()), ["mta-sts.example.org", "gone.example.org"]
        key = next_key(keys, "web")
        write_issued(keys, "web", key, Authority().leaf(*issued, key=key).certificate_pem.decode())
        web = '[[listen]]\nservice = "web"\nendpoint = "tcp:443"\ntls = "implicit"\n[acme]\n'
        text = f'keys = "{keys}"\n' + CONFIGURATION + web
        silent = lambda name, type: fail(LookupFailed("no answer"))  # noqa: E731
        server: Any = SimpleNamespace(
            reactor=Clock(), resolver=SimpleNamespace(query=silent), state=SimpleNamespace(seconds=lambda: 0.0),
            pools=SimpleNamespace(of=lambda name: lambda function, *arguments: succeed(function(*arguments))),
        )  # fmt: skip
        joined = _Joined(server, lambda: parse(text, file="x", directory="/"))
        visits = self.successResultOf(Deferred.fromCoroutine(joined.visits(TimeAllowance(1))))
        self.assertEqual([(one.name, one.names) for one in visits], [("web", issued[:1])])

    def test_a_web_process_that_is_about_to_be_started_is_waited_for(self) -> None:
        clock, faults = Clock(), [OSError("there is no web process")] * 2
        shown: list[str] = []

        class Web:
            def publish_challenge(self, host: str, token: str, key_authorization: str) -> Deferred[None]:
                if faults:
                    raise faults.pop()
                shown.append(host)
                return succeed(None)

        challenge = ShownChallenge("http-01", "mta-sts.example.org", "t" * 43, "x")
        web: Any = Web()
        showing = Deferred.fromCoroutine(ByWebListener("http-01", web, clock).show([challenge]))
        for _ in range(3):
            clock.advance(2)
        self.successResultOf(showing)
        self.assertEqual(shown, ["mta-sts.example.org"])


class Service(SynchronousTestCase):
    """One certificate's trouble is its own, and the end is the end."""

    def setUp(self) -> None:
        self.clock, self.looked, self.taken, self.names = Clock(), [], [], ["mail", "web"]
        self.service = AcmeService(clock=self.clock, visits=self.visits, run_in_thread=self.run_now, taken_up=self.taken_up, now=lambda: 0.0)

    def run_now(self, function: Any, *arguments: Any) -> Deferred[Any]:
        return succeed(function(*arguments))

    async def taken_up(self, visited: Visited) -> None:
        self.taken.append(visited.name)

    async def visits(self, allowance: TimeAllowance) -> Any:
        case = self

        class Fake:
            def __init__(self, name: str) -> None:
                self.name = name

            def look(self, **wanted: Any) -> Visited:
                case.looked.append((self.name, wanted))
                if self.name == "mail":
                    raise OSError("the disk is full")
                return Visited(self.name, None, CertificateProgress(failures=2, error="why"), 0.0, True)

        return [Fake(name) for name in self.names]

    def test_the_second_is_looked_after_although_the_first_cannot_be_and_postmaster_is_told_of_the_late_one(self) -> None:
        self.service.start()
        self.clock.advance(5)
        self.assertEqual(self.taken, ["web"])
        [problem] = self.service.problems()
        self.assertEqual(problem.title, "no new certificate for the web names")
        self.assertIn("why", problem.lines)
        self.assertEqual(self.service.figures()["web"], {"days_left": 0.0, "failures": 2, "late": 1})
        self.clock.advance(60)
        self.assertEqual(len(self.looked), 4)
        for _ in range(60):
            self.clock.advance(61)
        titles = sorted(one.title for one in self.service.problems())
        self.assertEqual(titles, ["no new certificate for the web names", "the certificate of the mail host cannot be looked after"])
        self.names = []  # a reload has turned it off
        self.clock.advance(61)
        self.assertEqual(self.service.problems(), [])
        self.service.stop()
        self.looked = self.looked[:4]
        self.clock.advance(600)
        self.assertEqual(len(self.looked), 4)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_asks_by_hand_hears_why_not(self) -> None:
        for name, words in (("mail", "the disk is full"), ("other", "no certificate 'other'"), ("web", "why")):
            failure = self.failureResultOf(Deferred.fromCoroutine(self.service.renew(name)))
            self.assertIn(words, failure.getErrorMessage())
        self.assertEqual(self.looked[0], ("mail", {"is_urgent": True}))
        Deferred.fromCoroutine(self.service.look())
        self.assertIn("web", self.service.figures())
        self.names = ["mail"]
        self.failureResultOf(Deferred.fromCoroutine(self.service.renew("web")))
        self.assertIn("web", self.service.figures(), "what is known of it is told all the same")
