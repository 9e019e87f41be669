"""Trials against hosts that do not do as they should."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.doctor.findings import CheckedRecord, RecordVerdict
from mailserver.doctor.house_facts import DomainFacts
from mailserver.doctor.smtp_talk import ServerPlace, talk_with
from mailserver.doctor.trial_facts import AskedList, TrialFacts
from mailserver.doctor.trying import Trials
from mailserver.trust.dns_lists import CodeSet
from tests.doctor.zones import ZoneTable
from tests.trust.chains import Link, chain_of

FACTS = DomainFacts(domain="example.org", hostname="mail.example.org", addresses=("127.0.0.1",))
LINES = ["example.org MX 10 mail.example.org", "mail.example.org A 127.0.0.1", "_mta-sts.example.org TXT v=STSv1; id=1"]
Answers = Callable[[str, str], str]


class Table(ZoneTable):
    def told(self, name: str, type: str) -> tuple[str, ...] | None:
        return None if name in self.failed else self.of(name, type).records


class Host:
    """A mail server that answers RCPT as `answers(sender, recipient)` says, and all else with yes."""

    def __init__(self, answers: Answers, *, greeting: str = "220 mail.example.org", link: str = "", most: int = 1000) -> None:
        self.answers, self.greeting, self.most = answers, greeting, most
        self.context = None
        if link:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(link)
            self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.contents = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(30)

    def serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            try:
                with sock:
                    self.talk(sock)
            except OSError:
                pass

    def talk(self, sock: socket.socket) -> None:
        sock.sendall(self.greeting.encode() + b"\r\n")
        file, sender, refused = sock.makefile("rb"), "", 0
        while line := file.readline().decode():
            verb = line[:4].upper()
            reply = "250 yes"
            if verb == "EHLO":
                reply = "250-mail.example.org\r\n250 STARTTLS" if self.context else "250 mail.example.org"
            elif verb == "STAR" and self.context:
                sock.sendall(b"220 go\r\n")
                with self.context.wrap_socket(sock, server_side=True) as secured:
                    if secured.recv(1):
                        return
                return
            elif verb == "MAIL":
                sender = line.partition("<")[2].rpartition(">")[0]
            elif verb == "RCPT":
                reply = self.answers(sender, line.partition("<")[2].rpartition(">")[0])
                refused += reply[0] != "2"
            elif verb == "DATA":
                sock.sendall(b"354 go\r\n")
                while file.readline() not in (b".\r\n", b""):
                    pass
                self.contents += 1
                reply = "250 2.6.0 queued as 0123456789ABCDEF"
            sock.sendall(f"{reply}\r\n".encode())
            if verb == "QUIT" or refused >= self.most:
                return


class Endless(Host):
    """It says what it has to say again and again, after each `pause` seconds."""

    def __init__(self, octets: bytes, pause: float) -> None:
        self.octets, self.pause = octets, pause
        super().__init__(no)

    def talk(self, sock: socket.socket) -> None:
        while True:
            sock.sendall(self.octets)
            threading.Event().wait(self.pause)


def no(sender: str, recipient: str) -> str:
    return "250 yes" if recipient == "postmaster@example.org" else "550 5.7.1 no"


CONTEXT = ssl.create_default_context


def only_old() -> ssl.SSLContext:
    """Of a client that speaks a version which the host does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_NONE
    return context


class Trying(SynchronousTestCase):
    def trials(self, host: Host, *lines: str, facts: DomainFacts = FACTS, seconds: float = 30.0, **more: object) -> Trials:
        self.addCleanup(host.stop)
        more.setdefault("listeners", (ServerPlace("127.0.0.1", host.port),))
        trial = TrialFacts(probe="selftest@example.org", **more)  # type: ignore[arg-type]
        route = {"hops": [{"how": "account"}], "ends": [{"kind": "local", "system_user": "", "mailbox": "selftest@example.org"}]}
        self.asked: list[tuple[str, Any]] = []

        def ask(command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
            self.asked.append((command, arguments))
            return route

        return Trials(facts, trial, Table([*LINES, *lines]), ask=ask, port=host.port, seconds=seconds)

    def relaying(self, answers: Answers, **more: int) -> CheckedRecord:
        (found,) = [one for one in self.trials(Host(answers, **more)).of_host() if one.group == "relay"]  # type: ignore[arg-type]
        return found

    def test_each_way_through_an_open_relay_is_named(self) -> None:
        for pattern, words in (
            (r".*@example\.net", "plain (MAIL FROM:<relay-test@example.com> RCPT TO:<relay-test@example.net>); null sender"),
            (r"relay-test%example\.net@example\.org", "percent hack ("),
            (r"relay-test%example\.net@\[127\.0\.0\.1\]", "percent hack at the host's address ("),
            (r'"relay-test@example\.net"@example\.org', "quoted local part ("),
            (r"@example\.org:relay-test@example\.net", "source route ("),
            (r"relay-test@\[192\.0\.2\.1\]", "domain literal of another host ("),
            (r"example\.net!.*@example\.org", "bang path ("),
        ):
            said = self.relaying(lambda sender, recipient, pattern=pattern: "250 yes" if re.fullmatch(pattern, recipient) else "550 no")  # type: ignore[misc]
            self.assertEqual((said.fault, said.verdict), ("open-relay", RecordVerdict.WRONG))
            self.assertIn(words, said.why)
        said = self.relaying(lambda sender, recipient: "250 yes" if sender == "postmaster@example.org" else "550 no")
        self.assertIn("others through it: our domain as sender (", said.why)

    def test_a_domain_that_takes_every_name_is_no_relay(self) -> None:
        said = self.relaying(lambda sender, recipient: "250 yes" if recipient.endswith("@example.org") and recipient[0] != "@" else "550 no")
        self.assertEqual((said.fault, said.verdict), ("", RecordVerdict.OK))

    def test_a_host_that_ends_after_some_refusals_is_asked_to_the_end(self) -> None:
        said = self.relaying(no, most=2)
        self.assertEqual((said.fault, said.why), ("", "16 ways to send mail to others through it were refused"))
        said = self.relaying(lambda sender, recipient: "451 4.7.1 later")
        self.assertEqual((said.fault, said.is_advice), ("relay-unknown", True))
        said = self.relaying(no, greeting="554 no")
        self.assertEqual((said.fault, said.why), ("relay-unknown", "it could not be tried: it greets with 554 no"))

    def arrival(self, host: Host, maildir: str = "") -> CheckedRecord:
        (found,) = self.trials(host, maildir=maildir, listeners=()).of_domain()
        return found

    def test_what_becomes_of_a_message_is_told(self) -> None:
        for host, fault, words in (
            (Host(no), "", "mail to postmaster@example.org would be taken"),
            (Host(lambda *_: "550 5.1.1 nobody"), "arrival-refused", "RCPT of a message to postmaster@example.org hears 550 5.1.1 nobody"),
            (Host(lambda *_: "451 4.7.1 greylisted"), "arrival-deferred", "a sender would come again"),
            (Host(no, greeting="554 go away"), "arrival-refused", "greeting of a message"),
        ):
            found = self.arrival(host)
            self.assertEqual(found.fault, fault)
            self.assertIn(words, found.why)
        import mailserver.doctor.trying as trying

        self.patch(trying, "FIND_SECONDS", 0.2)
        lost = Host(lambda *_: "250 yes")
        self.assertEqual(self.arrival(lost, self.mktemp()).fault, "arrival-lost")
        self.assertEqual(lost.contents, 1)
        self.assertEqual(self.asked[-1], ("queue.change", {"verb": "drop", "selection": {"id": "0123456789ABCDEF"}, "by": "mailserver dns --try"}))

    def test_nobody_who_answers_is_told_apart_from_nobody_who_can_be_reached(self) -> None:
        host = Host(no)
        trials = self.trials(host, listeners=())
        trials._port = 1
        (found,) = trials.of_domain()
        self.assertEqual((found.fault, found.verdict), ("arrival-unreachable", RecordVerdict.WRONG))

        import mailserver.doctor.trying as trying

        self.patch(trying, "is_ours", lambda address: False)
        (found,) = trials.of_domain()
        self.assertEqual((found.fault, found.verdict), ("arrival-unknown", RecordVerdict.UNKNOWN))

    def starttls(self, link: Link | None, *, has_policy: bool = True, **facts: object) -> CheckedRecord:
        path = Path(self.mktemp())
        path.write_bytes(link.pem if link else b"")
        roots = Path(self.mktemp())
        roots.write_bytes(self.root.pem)
        trials = self.trials(Host(no, link=str(path) if link else ""), facts=replace(FACTS, **facts), listeners=())  # type: ignore[arg-type]
        trials._ca_file = str(roots)
        if not has_policy:
            trials._seen = Table(LINES[:2])
        return next(one for one in trials.of_host() if one.group == "STARTTLS")

    def test_the_certificate_is_what_senders_who_verify_believe(self) -> None:
        now, pair, name = time.time(), ("ecdsa", "ecdsa"), ("mail.example.org",)
        right, self.root = chain_of(pair, name, now=now)
        self.assertEqual(self.starttls(right, chain=(right.der,)).fault, "")
        self.assertEqual(self.starttls(None).fault, "starttls-missing")
        for link, fault in (
            (chain_of(pair, ("www.example.org",), now=now)[0], "starttls-certificate-name"),
            (chain_of(pair, name, leaf_days=(-90, -1), now=now)[0], "starttls-certificate-expired"),
            (chain_of(("rsa",), name, now=now)[0], "starttls-certificate-untrusted"),
        ):
            found = self.starttls(link)
            self.assertEqual((found.fault, found.is_advice), (fault, False))
            found = self.starttls(link, has_policy=False)
            self.assertEqual((found.fault, found.is_advice), (fault, True))
        self.assertEqual(self.starttls(chain_of(pair, name, leaf_days=(1, 9), now=now)[0]).fault, "starttls-certificate-early")
        self.assertEqual(self.starttls(right, chain=(self.root.der,)).fault, "starttls-other")
        self.patch(ssl, "create_default_context", lambda cafile=None: only_old())
        found = self.starttls(right)
        self.assertEqual((found.fault, found.why), ("starttls-fails", "no TLS comes about: tlsv1 alert protocol version"))
        self.patch(ssl, "create_default_context", CONTEXT)
        self.assertEqual(self.starttls(chain_of(pair, name, leaf_days=(-80, 5), now=now)[0]).fault, "starttls-certificate-ends")

    def test_a_list_that_cannot_be_believed_says_nothing_about_us(self) -> None:
        names = ["sane", "all", "shy", "odd", "dumb"]
        lists = tuple([AskedList(one, f"{one}.example", (4,), (CodeSet.parse("127.255.255.0/24"),)) for one in names])
        lines = ["9.2.0.192.sane.example A 127.0.0.2", "*.2.0.192.all.example A 127.0.0.2", "1.0.0.127.all.example A 127.0.0.2"]
        lines += ["9.2.0.192.shy.example A 127.255.255.254", "9.2.0.192.odd.example A 203.0.113.9"]
        trials = self.trials(Host(no), *lines, facts=replace(FACTS, addresses=("192.0.2.9", "2001:db8::1")), lists=lists, listeners=())
        trials._seen.failed = ["9.2.0.192.dumb.example"]  # type: ignore[attr-defined]
        found = {one.name: one.fault for one in trials.of_host() if one.group == "lists"}
        self.assertEqual(found, {
            "192.0.2.9@sane": "listed", "192.0.2.9@all": "list-everything", "192.0.2.9@shy": "list-refuses", "192.0.2.9@odd": "list-odd",
            "192.0.2.9@dumb": "list-unknown",
        })  # fmt: skip

    def test_a_reply_without_end_and_one_that_drips_are_over_in_time(self) -> None:
        for octets, pause, words in (
            (b"220-" + b"x" * 1000 + b"\r\n", 0.0, "a reply without end"),
            (b"2", 0.02, "it has not come to an end in time"),
        ):
            host = Endless(octets, pause)
            try:
                began = time.monotonic()
                with self.assertRaisesRegex((OSError, smtplib.SMTPException), words):
                    with talk_with(ServerPlace("127.0.0.1", host.port), "mail.example.org", began + 0.5):
                        self.fail("it has greeted")
                self.assertLess(time.monotonic() - began, 60)
            finally:
                host.stop()

    def test_trials_that_are_given_up_end(self) -> None:
        trials = self.trials(Host(no))
        trials.give_up()
        self.assertEqual([one.fault for one in trials.of_host() if one.group == "lists"], [])
