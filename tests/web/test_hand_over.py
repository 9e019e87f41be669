"""What the web process is handed: each thing once, the last value alone, all of it anew to the next process."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly.web import CertificateSource, WebHandOver
from mailserver.processes import frames
from mailserver.web.content import AlpnCertificate, ClientSettings, MailAccess, WebCertificate, WebContent
from mailserver.web.hand_over import HandOver, ListeningSocket, NoWebProcess
from mailserver.web.wire import QUESTION_OCTETS, decoded, encoded, members_of, said_number, taken_up
from tests.processes.test_exchange import Sides

WHOLE = WebContent(
    hostname="mx.example.org",
    policies={"example.org": "version: STSv1\r\n"},
    clients={"example.org": ClientSettings((MailAccess("imap", "mx.example.org", 993),), (MailAccess("smtp", "m", 587, "starttls"),))},
    challenges={("example.org", "token"): "token.key"},
    alpn={"example.org": AlpnCertificate(b"\x30\0\xff", "KEY")},
    certificate=WebCertificate("CHAIN", "KEY"),
    not_ready=("the server starts",),
)


class Wire(SynchronousTestCase):
    def test_all_that_there_is_comes_over_as_it_was(self) -> None:
        number, members = decoded(encoded(7, members_of(WHOLE)))
        self.assertEqual((number, taken_up(WebContent(), members)), (7, WHOLE))

    def test_what_is_missing_stays_and_what_is_unknown_is_left_alone(self) -> None:
        self.assertEqual(taken_up(WHOLE, {"new": 1, "not_ready": None}).policies, WHOLE.policies)

    def test_no_key_is_shown_where_a_value_is_printed(self) -> None:
        self.assertNotIn("KEY", repr(WHOLE))


class HandOvers(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor, self.clock, self.deaths = Sides(), Clock(), list[str]()
        self.hand_over = HandOver(self.reactor, self.clock, self.deaths.append)
        self.web = WebHandOver(self.hand_over)

    def process(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        self.addCleanup(self.hand_over.end)
        self.hand_over.serve(ours)
        return theirs

    def heard(self, process: socket.socket) -> dict[str, Any]:
        """The next frame, which the process takes up."""
        octets, descriptors = frames.receive(process, octets_most=QUESTION_OCTETS)
        for descriptor in descriptors:
            os.close(descriptor)
        members: dict[str, Any] = json.loads(octets)
        members["descriptors"] = len(descriptors)
        frames.send(process, said_number(members["number"]))
        self.turn()
        return members

    def turn(self) -> None:
        for one in list(self.reactor.readers):
            one.doRead()

    def test_it_fires_when_the_process_has_it_and_fails_without_one(self) -> None:
        self.failureResultOf(self.web.publish_challenge("example.org", "early", "x"), NoWebProcess)
        process = self.process()
        self.assertEqual(self.heard(process)["challenges"], [])
        published = self.web.publish_challenge("Example.org", "t", "t.k")
        self.assertNoResult(published)
        self.assertEqual(self.heard(process)["challenges"], [["example.org", "t", "t.k"]])
        self.successResultOf(published)
        withdrawn = self.web.withdraw_challenge("example.org", "t")
        self.assertEqual(self.heard(process)["challenges"], [])
        self.successResultOf(withdrawn)

    def test_what_changes_while_a_frame_is_under_way_is_said_once_with_its_last_value(self) -> None:
        process = self.process()
        self.hand_over.put(a=1)
        later = [self.hand_over.put(b=number) for number in range(100)]
        self.assertEqual(self.heard(process)["a"], 1)
        self.assertNoResult(later[0])
        self.assertEqual(self.heard(process)["b"], 99)
        for one in later:
            self.successResultOf(one)

    def test_the_next_process_is_handed_all_of_it(self) -> None:
        kept = self.web.change_certificate("CHAIN", "KEY")
        self.failureResultOf(kept, NoWebProcess)
        with socket.socket() as one:
            self.hand_over.listen({f"tcp:{n}": ListeningSocket(one.fileno(), {"tls": True}) for n in range(6)})
            for _ in range(2):
                process = self.process()
                first, second = self.heard(process), self.heard(process)
                self.assertEqual(first["certificate"], ["CHAIN", "KEY"])
                self.assertEqual([first["descriptors"], second["descriptors"]], [3, 3])
                self.assertEqual([*first["opened"], *second["opened"]], [[f"tcp:{n}", {"tls": True}] for n in range(6)])
            self.hand_over.listen({"tcp:1": ListeningSocket(one.fileno(), {"tls": True})})
            gone = [self.heard(process) for _ in range(2)]
            self.assertEqual([one["closed"] for one in gone], [["tcp:0", "tcp:2", "tcp:3"], ["tcp:4", "tcp:5"]])
            self.assertEqual([one["opened"] for one in gone], [[], []])

    def test_files_are_shown_before_what_a_ca_has_issued_and_that_before_our_own(self) -> None:
        process = self.process()
        self.hand_over.put(a=1)
        self.heard(process)
        own, issued, files = (WebCertificate(name, "KEY") for name in ("own", "issued", "files"))
        shown = []
        for change in (
            lambda: self.web.put_certificate(CertificateSource.OWN, own),
            lambda: self.web.put_certificate(CertificateSource.FILES, files),
            lambda: self.web.change_certificate("issued", "KEY"),
            lambda: self.web.put_certificate(CertificateSource.FILES, None),
            lambda: self.web.put_certificate(CertificateSource.OWN, own),
        ):
            done = change()
            if not done.called:
                self.heard(process)
            self.successResultOf(done)
            shown.append(self.web._content.certificate)
        self.assertEqual(shown, [own, files, files, issued, issued])

    def test_the_pipe_for_its_lines_goes_with_the_first_frame_and_is_not_kept(self) -> None:
        ours, theirs = os.pipe()
        self.hand_over.put(a=1).addErrback(lambda _: None)
        end, process = socket.socketpair()
        self.addCleanup(process.close)
        self.addCleanup(self.hand_over.end)
        self.hand_over.serve(end, log=theirs)
        first = self.heard(process)  # which closes what has come with it
        self.assertEqual((first["log"], first["descriptors"]), (True, 1))
        with open(ours, "rb") as lines:
            self.assertEqual(lines.read(), b"")  # nobody holds the other end
        self.hand_over.put(a=2)
        self.assertNotIn("log", self.heard(process))

    def test_one_that_is_stopped_counts_as_dead_and_what_waits_fails(self) -> None:
        self.process()
        published = self.web.publish_challenge("example.org", "t", "x" * (4 << 20))
        self.clock.advance(9)
        self.assertNoResult(published)
        self.clock.advance(2)
        self.failureResultOf(published, NoWebProcess)
        self.assertEqual(self.deaths, ["it has taken nothing up for 10 seconds"])
        self.assertEqual((self.reactor.readers, self.reactor.writers, self.clock.getDelayedCalls()), (set(), set(), []))
        self.assertEqual(self.heard(self.process())["challenges"], [])

    def test_one_that_says_what_it_was_not_asked_is_given_up(self) -> None:
        for octets in (b"x", b"\0\0\0\1" + b"9", b"\0\0\0\1" + b"-", b"\xff\xff\xff\xff", b"\0\0\0\3x y"):
            process = self.process()
            published = self.hand_over.put(a=1)
            process.sendall(octets if octets != b"x" else b"")
            if octets == b"x":
                self.heard(process)
                process.sendall(octets)
                self.successResultOf(published)
            self.turn()
            if octets != b"x":
                self.failureResultOf(published, NoWebProcess)
            self.assertFalse(self.hand_over.is_served, octets)
        self.assertEqual(len(self.deaths), 5)

    def test_a_socket_that_the_process_before_has_shut_down_listens_again_for_the_next(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as bound:
            self.hand_over.listen({"a": ListeningSocket(bound.fileno(), {})})
            self.heard(self.process())
            bound.shutdown(socket.SHUT_RDWR)  # as by any duplicate
            self.assertRaises(ConnectionRefusedError, socket.create_connection, bound.getsockname(), 5)
            self.heard(self.process())
            socket.create_connection(bound.getsockname(), 5).close()

    def test_one_that_dies_is_noticed_at_once(self) -> None:
        process = self.process()
        published = self.hand_over.put(a=1)
        process.close()
        self.turn()
        self.failureResultOf(published, NoWebProcess)
        self.assertEqual(self.deaths, ["it has died"])
