"""The capture server, asked by smtplib over real sockets."""

from __future__ import annotations

import base64
import contextlib
import errno
import select
import smtplib
import socket
import ssl
import threading
import unittest
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from mailserver.sink.answers import SinkAnswers, Terms
from mailserver.sink.connection import SinkConnection
from mailserver.sink.faults import FaultBook
from mailserver.testing import CaptureMixin, CaptureServer

SENDER, ANN, BOB = "me@example.org", "ann@example.net", "bob@example.net"
TEXT = b"Subject: Hello\r\n\r\n.dots\r\n..\r\n"
SECONDS = 30.0  # more than any test takes


class Case(CaptureMixin, SynchronousTestCase):
    def client(self, **options: Any) -> smtplib.SMTP:
        client = smtplib.SMTP(self.smtp_server.hostname, self.smtp_server.port, timeout=SECONDS, **options)
        self.addCleanup(client.close)
        return client

    def send(self, *recipients: str) -> None:
        self.client().sendmail(SENDER, recipients or (ANN,), TEXT)

    def code(self, *recipients: str) -> int:
        """The code of the refusal that sending meets."""
        try:
            self.send(*recipients)
        except smtplib.SMTPRecipientsRefused as refused:
            return {code for code, _ in refused.recipients.values()}.pop()
        except smtplib.SMTPResponseException as refused:
            return refused.smtp_code
        return 250


class Capturing(Case):
    smtp_server_options = {"message_octets": 10_000, "messages_max": 3, "connections_max": 2}

    def test_a_message_is_kept_with_its_envelope_octet_for_octet(self) -> None:
        client = self.client(local_hostname="client.example.net")
        client.ehlo()
        client.sendmail(SENDER, [ANN, BOB], TEXT, ["BODY=8BITMIME", "ENVID=a+2Bb"], ["NOTIFY=NEVER"])
        (message,) = self.smtp_server.wait_for(1)
        self.assertEqual((message.sender, message.recipients, message.content), (SENDER, (ANN, BOB), TEXT))
        self.assertEqual((message.hello, message.tls, message.login), ("client.example.net", "", ""))
        self.assertEqual((message.parameters.body, message.parameters.envid), ("8BITMIME", "a+b"))
        self.assertEqual([one.notify for one in message.recipient_parameters], [frozenset({"NEVER"})] * 2)
        self.assertEqual(message.email["Subject"], "Hello")

    def test_several_messages_of_one_session_come_in_order_and_a_reset_is_none(self) -> None:
        client = self.client()
        client.sendmail(SENDER, [ANN], TEXT)
        client.mail("lost@example.org")
        client.rcpt(BOB)
        client.rset()
        client.sendmail("", [BOB], TEXT)
        self.assertEqual([(one.sender, one.recipients) for one in self.smtp_server.wait_for(2)], [(SENDER, (ANN,)), ("", (BOB,))])

    def test_waiting_for_what_does_not_come_says_how_much_there_is(self) -> None:
        self.send()
        error = self.assertRaises(TimeoutError, self.smtp_server.wait_for, 2, 0)
        self.assertIn("1 of 2 messages", str(error))
        self.smtp_server.clear()
        self.assertEqual(self.smtp_server.messages, [])

    def test_who_waits_in_a_thread_is_woken(self) -> None:
        seen: list[int] = []
        waiter = threading.Thread(target=lambda: seen.append(len(self.smtp_server.wait_for(1, SECONDS))))
        waiter.start()
        self.send()
        waiter.join(SECONDS)
        self.assertEqual(seen, [1])

    def test_every_bound_has_its_reply(self) -> None:
        client = self.client()
        client.helo()  # no SIZE: the octets themselves are counted
        error = self.assertRaises(smtplib.SMTPDataError, client.sendmail, SENDER, [ANN], b"x\r\n" * 4000)
        self.assertEqual(error.smtp_code, 552)
        for _ in range(3):
            client.sendmail(SENDER, [ANN], TEXT)
        error = self.assertRaises(smtplib.SMTPDataError, client.sendmail, SENDER, [ANN], TEXT)
        self.assertEqual(error.smtp_code, 452)
        self.assertEqual(len(self.smtp_server.messages), 3)
        self.client().noop()
        refused = self.assertRaises(smtplib.SMTPConnectError, self.client)
        self.assertEqual(refused.smtp_code, 421)

    def test_a_mailbox_that_was_emptied_has_room_again(self) -> None:
        client = self.client()
        for _ in range(3):
            client.sendmail(SENDER, [ANN], TEXT)
        self.smtp_server.clear()
        client.sendmail(SENDER, [ANN], TEXT)
        self.assertEqual(len(self.smtp_server.messages), 1)

    def test_who_takes_the_messages_itself_gets_each_and_the_client_hears_250(self) -> None:
        taken: list[Any] = []
        with CaptureServer(tls="none", take=taken.append) as server:
            self.assertEqual(server.certificate, "")
            with smtplib.SMTP(server.hostname, server.port, timeout=SECONDS) as client:
                for _ in range(2):
                    client.sendmail(SENDER, [ANN], TEXT)
            self.assertEqual([one.content for one in taken], [TEXT, TEXT])
            self.assertEqual(server.messages, [])

    def test_it_listens_on_loopback_only(self) -> None:
        self.assertEqual(self.smtp_server._listener.getsockname()[0], "127.0.0.1")


class Silence(Case):
    smtp_server_options = {"idle_seconds": 0.05}

    def test_a_client_that_says_nothing_is_sent_away(self) -> None:
        with socket.create_connection((self.smtp_server.host, self.smtp_server.port), SECONDS) as sock, sock.makefile("rb") as file:
            self.assertEqual([line[:3] for line in file], [b"220", b"421"])


class Life(SynchronousTestCase):
    def test_a_stopped_server_is_down_and_comes_back_on_its_port_with_what_it_had(self) -> None:
        server = CaptureServer()
        self.addCleanup(server.stop)
        server.start()
        with smtplib.SMTP(server.host, server.port, timeout=SECONDS) as client:
            client.sendmail(SENDER, [ANN], TEXT)
        port = server.port
        self.assertRaises(RuntimeError, server.start)
        server.stop()
        server.stop()
        self.assertRaises(ConnectionRefusedError, socket.create_connection, (server.host, port))
        server.start()
        self.assertEqual(server.port, port)
        with smtplib.SMTP(server.host, port, timeout=SECONDS) as client:
            client.sendmail(SENDER, [BOB], TEXT)
        self.assertEqual(len(server.messages), 2)

    def test_stopping_cuts_connections_and_pauses_and_leaves_no_thread(self) -> None:
        before = set(threading.enumerate())
        with CaptureServer() as server:
            server.delay("mail", 3600)
            plain = smtplib.SMTP(server.hostname, server.port, timeout=SECONDS)
            secured = smtplib.SMTP(server.hostname, server.port, timeout=SECONDS)
            secured.starttls(context=server.client_context())
            plain.ehlo()
            plain.putcmd("MAIL", f"FROM:<{SENDER}>")
            certificate = server.certificate
        self.assertEqual(set(threading.enumerate()) - before, set())
        self.assertRaises(smtplib.SMTPServerDisconnected, plain.getreply)
        self.assertRaises(smtplib.SMTPServerDisconnected, secured.noop)
        self.assertRaises(FileNotFoundError, open, certificate)
        self.assertEqual(server.certificate, "")

    def test_a_stop_that_comes_while_tls_takes_over_the_socket_waits_for_no_handshake(self) -> None:
        """`cut` has met the socket that was there before."""
        stopping, context = threading.Event(), mock.Mock()
        secured = context.wrap_socket.return_value
        context.wrap_socket.side_effect = lambda *_, **__: stopping.set() or secured
        terms = Terms({}, offers_starttls=False, requires_tls=False, requires_login=False, message_octets=1000)
        connection = SinkConnection(
            mock.Mock(), SinkAnswers(terms, FaultBook()), terms=terms, hostname="sink.example", context=context, implicit_tls=True,
            idle_seconds=SECONDS, keep=lambda _: True, stopping=stopping,
        )  # fmt: skip
        connection.serve()
        secured.do_handshake.assert_not_called()
        secured.close.assert_called_once_with()

    def test_a_connection_that_cannot_be_taken_keeps_no_later_one_out(self) -> None:
        faults = [OSError(errno.EMFILE, "Too many open files")]

        class Scarce(socket.socket):
            def accept(self) -> tuple[socket.socket, Any]:
                if faults:
                    raise faults.pop()
                return super().accept()

        made = socket.create_server
        self.patch(socket, "create_server", lambda *arguments, **more: Scarce(fileno=made(*arguments, **more).detach()))
        with CaptureServer(tls="none") as server, smtplib.SMTP(server.host, server.port, timeout=SECONDS) as client:
            client.sendmail(SENDER, [ANN], TEXT)
            self.assertEqual((faults, len(server.messages)), ([], 1))

    def test_a_port_in_use_is_told(self) -> None:
        with CaptureServer() as server:
            self.assertRaises(OSError, CaptureServer(port=server.port).start)

    def test_what_does_not_fit_together_is_refused(self) -> None:
        for wrong in (
            {"tls": "ssl"}, {"require_login": True}, {"tls": "none", "require_tls": True}, {"messages_max": 0}, {"idle_seconds": 0.0},
        ):  # fmt: skip
            self.assertRaises(ValueError, CaptureServer, **wrong)
        self.assertRaises(RuntimeError, CaptureServer(tls="none").client_context)
        CaptureServer(message_octets=1, messages_max=1, connections_max=1)


class Encryption(Case):
    smtp_server_options = {"users": {"ann": "sécret"}, "require_tls": True, "require_login": True}

    def test_starttls_and_a_login_are_required_and_captured(self) -> None:
        client = self.client()
        self.assertRaises(smtplib.SMTPNotSupportedError, client.login, "ann", "sécret")
        self.assertEqual(client.docmd("AUTH", "PLAIN")[0], 538)
        self.assertEqual(client.mail(SENDER)[0], 530)
        client.starttls(context=self.smtp_server.client_context())
        client.ehlo()
        self.assertEqual(client.mail(SENDER)[0], 530)
        initial = base64.b64encode("\0ann\0sécret".encode()).decode()  # smtplib's own login takes ASCII only
        self.assertEqual(client.docmd("AUTH", f"PLAIN {initial}")[0], 235)
        client.sendmail(SENDER, [ANN], TEXT)
        (message,) = self.smtp_server.wait_for(1)
        self.assertEqual(message.login, "ann")
        self.assertRegex(message.tls, r"^TLSv1\.[23]$")

    def test_where_nobody_has_a_password_a_login_is_not_offered(self) -> None:
        with CaptureServer(tls="none") as server, contextlib.closing(smtplib.SMTP(server.host, server.port, timeout=SECONDS)) as client:
            client.ehlo()
            self.assertEqual(client.docmd("AUTH", "PLAIN")[0], 502)

    def test_who_does_not_know_the_certificate_does_not_trust_it(self) -> None:
        self.assertRaises(ssl.SSLCertVerificationError, self.client().starttls, context=ssl.create_default_context())
        self.assertEqual(self.smtp_server.messages, [])


class FromTheFirstOctet(Case):
    smtp_server_options = {"tls": "implicit"}

    def test_implicit_tls(self) -> None:
        server = self.smtp_server
        for host in (server.hostname, server.host):
            with smtplib.SMTP_SSL(host, server.port, timeout=SECONDS, context=server.client_context()) as client:
                client.ehlo()
                self.assertFalse(client.has_extn("starttls"))
                client.sendmail(SENDER, [ANN], TEXT)
        self.assertTrue(all(one.tls for one in server.wait_for(2)))

    def test_one_who_speaks_no_tls_disturbs_nobody(self) -> None:
        with socket.create_connection((self.smtp_server.host, self.smtp_server.port), SECONDS) as sock:
            sock.sendall(b"EHLO me\r\n" * 10)
            with contextlib.suppress(ConnectionResetError):  # whichever comes first: TLS's alert or the end
                self.assertNotIn(b"220", sock.recv(1000))
        self.test_implicit_tls()


class Logins(Case):
    smtp_server_options = {"users": {"ann": "secret", "bob": "other"}}

    def test_right_and_wrong_with_plain_and_login(self) -> None:
        for mechanism, right in (("PLAIN", True), ("LOGIN", True), ("PLAIN", False), ("LOGIN", False)):
            client = self.client()
            client.ehlo()
            client.user, client.password = "ann", "secret" if right else "other"
            say = client.auth_plain if mechanism == "PLAIN" else client.auth_login
            if right:
                client.auth(mechanism, say)
            else:
                error = self.assertRaises(smtplib.SMTPAuthenticationError, client.auth, mechanism, say)
                self.assertEqual(error.smtp_code, 535)
            client.sendmail(SENDER, [ANN], TEXT)
        self.assertEqual([one.login for one in self.smtp_server.messages], ["ann", "ann", "", ""])

    def test_a_login_before_starttls_is_forgotten_after_it(self) -> None:
        client = self.client()
        client.login("ann", "secret")
        client.starttls(context=self.smtp_server.client_context())
        client.sendmail(SENDER, [ANN], TEXT)
        self.assertEqual(self.smtp_server.messages[0].login, "")

    def test_nobody_acts_for_another_and_a_refused_login_is_none(self) -> None:
        client = self.client()
        client.ehlo()
        self.assertRaises(smtplib.SMTPAuthenticationError, client.auth, "PLAIN", lambda _=None: "bob\0ann\0secret")
        self.smtp_server.refuse("auth", 454, "4.7.0 Not now")
        error = self.assertRaises(smtplib.SMTPAuthenticationError, client.auth, "PLAIN", lambda _=None: "\0ann\0secret")
        self.assertEqual(error.smtp_code, 454)
        client.sendmail(SENDER, [ANN], TEXT)
        self.assertEqual(self.smtp_server.messages[0].login, "")


class Faults(Case):
    def test_a_refusal_happens_once_at_each_stage_and_then_mail_goes_through(self) -> None:
        for stage, code in (("connect", 554), ("hello", 451), ("mail", 451), ("rcpt", 550), ("data", 451), ("end", 451)):
            self.smtp_server.clear()
            self.smtp_server.refuse(stage, code)
            if stage == "hello":
                self.assertEqual(self.client().ehlo()[0], code)
            else:
                self.assertEqual(self.code(), code, stage)
            self.assertEqual(self.smtp_server.messages, [], stage)
            self.assertEqual(self.code(), 250, stage)
            self.assertEqual(len(self.smtp_server.messages), 1, stage)

    def test_starttls_may_be_refused(self) -> None:
        self.smtp_server.refuse("starttls", 454, "4.7.0 Not now")
        client = self.client()
        self.assertRaises(smtplib.SMTPResponseException, client.starttls, context=self.smtp_server.client_context())
        client.sendmail(SENDER, [ANN], TEXT)

    def test_some_times_and_always_until_it_is_healed(self) -> None:
        self.smtp_server.refuse("end", times=2)
        self.assertEqual([self.code() for _ in range(3)], [451, 451, 250])
        self.smtp_server.refuse("end", 552, times=None)
        self.assertEqual([self.code() for _ in range(3)], [552, 552, 552])
        self.smtp_server.heal()
        self.assertEqual(self.code(), 250)

    def test_one_recipient_is_refused_and_the_other_is_not(self) -> None:
        self.smtp_server.refuse("rcpt", 550, "5.1.1 No such user", times=None, address="BOB@example.net")
        refused = self.client().sendmail(SENDER, [ANN, BOB], TEXT)
        self.assertEqual(refused, {BOB: (550, b"5.1.1 No such user")})
        self.assertEqual(self.smtp_server.messages[0].recipients, (ANN,))

    def test_a_refusal_without_an_enhanced_code_has_one_all_the_same(self) -> None:
        self.smtp_server.refuse("mail", 451, "Later")
        client = self.client()
        client.ehlo()
        self.assertEqual(client.mail(SENDER), (451, b"4.0.0 Later"))

    def test_any_code_of_a_refusal_may_be_ordered(self) -> None:
        for code in (400, 499, 500, 599):
            self.smtp_server.refuse("mail", code, "no")
            self.assertEqual(self.code(), code)

    def test_of_two_delays_each_has_its_turn(self) -> None:
        self.smtp_server.delay("mail", 0.01)
        self.smtp_server.delay("mail", 3600)
        self.assertEqual(self.client().docmd("EHLO there")[0], 250)
        client = self.client()
        client.ehlo()
        self.assertEqual(client.mail(SENDER)[0], 250)

    def test_421_ends_the_session(self) -> None:
        self.smtp_server.refuse("rcpt", 421, "4.3.2 Going down")
        client = self.client()
        client.ehlo()
        client.mail(SENDER)
        self.assertEqual(client.rcpt(ANN)[0], 421)
        self.assertRaises(smtplib.SMTPServerDisconnected, client.noop)

    def test_the_last_reply_arrives_however_much_was_sent_behind_the_command(self) -> None:
        self.smtp_server.refuse("mail", 421, "4.3.2 Going down")
        with socket.create_connection((self.smtp_server.host, self.smtp_server.port), SECONDS) as client:
            client.recv(1000)
            client.sendall(b"EHLO x\r\n")
            client.recv(1000)
            client.sendall(b"MAIL FROM:<a@b.example>\r\n" + b"x" * 400_000)
            client.shutdown(socket.SHUT_WR)
            select.select([client], [], [], SECONDS)
            self.smtp_server.stop(answer_seconds=SECONDS)
            self.assertEqual(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0, "no reset, which takes replies away")
            self.assertTrue(client.recv(1000).startswith(b"421 "))

    def test_what_comes_behind_the_last_reply_is_read_though_the_server_stops(self) -> None:
        heard = threading.Event()
        hear_no_more = SinkConnection.hear_no_more

        def hear(connection: SinkConnection) -> None:
            hear_no_more(connection)
            heard.set()

        self.smtp_server.refuse("mail", 421, "4.3.2 Going down")
        with socket.create_connection((self.smtp_server.host, self.smtp_server.port), SECONDS) as client:
            client.recv(1000)
            client.sendall(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\n")
            said = b""
            while b"\r\n421 " not in said:
                said += client.recv(1000)
            self.patch(SinkConnection, "hear_no_more", hear)
            stopping = threading.Thread(target=self.smtp_server.stop, kwargs={"answer_seconds": SECONDS})
            stopping.start()
            heard.wait(SECONDS)
            for _ in range(20):
                client.sendall(b"x" * 1000)
            client.shutdown(socket.SHUT_WR)
            stopping.join()
            self.assertEqual(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)

    def test_the_connection_drops_at_every_stage_and_nothing_is_kept(self) -> None:
        for stage in ("connect", "hello", "mail", "rcpt", "data", "end"):
            self.smtp_server.hang_up(stage)
            error = self.assertRaises((smtplib.SMTPServerDisconnected, ConnectionResetError), self.send)
            self.assertNotIsInstance(error, TimeoutError)
            self.assertEqual(self.smtp_server.messages, [], stage)
        self.send()

    def test_after_the_dot_it_drops_with_the_message_kept(self) -> None:
        self.smtp_server.hang_up("end", keep=True)
        self.assertRaises(smtplib.SMTPServerDisconnected, self.send)
        self.assertEqual(self.smtp_server.wait_for(1)[0].content, TEXT)

    def test_an_answer_that_is_late_comes_after_those_before_it(self) -> None:
        self.smtp_server.delay("rcpt", 3600)
        client = self.client()
        client.ehlo()
        client.send(f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{ANN}>\r\n")
        self.assertEqual(client.getreply()[0], 250)  # that of MAIL is not late
        client.sock.settimeout(0.05)
        self.assertRaises(smtplib.SMTPServerDisconnected, client.getreply)

    def test_a_late_250_has_kept_the_message_before_and_a_delay_goes_with_a_refusal(self) -> None:
        self.smtp_server.delay("end", 3600)
        client = self.client()
        client.ehlo()
        client.send(f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{ANN}>\r\nDATA\r\n")
        self.assertEqual([client.getreply()[0] for _ in range(3)], [250, 250, 354])
        client.send(b"Text\r\n.\r\n")
        self.smtp_server.wait_for(1, SECONDS)
        client.close()
        self.smtp_server.delay("end", 0.01)
        self.smtp_server.refuse("end", 452)
        self.assertEqual(self.code(), 452)
        self.assertEqual(len(self.smtp_server.messages), 1)

    def test_what_cannot_happen_cannot_be_ordered(self) -> None:
        server = self.smtp_server
        self.assertRaises(ValueError, server.refuse, "quit")
        for code, text in ((250, "OK"), (600, "x"), (451, "5.1.1 No"), (451, "one\r\n250 two")):
            self.assertRaises(ValueError, server.refuse, "rcpt", code, text)
        self.assertRaises(ValueError, server.refuse, "rcpt", times=0)
        self.assertRaises(ValueError, server.refuse, "data", address=ANN)
        self.assertRaises(ValueError, server.hang_up, "rcpt", keep=True)
        for seconds in (-1, 3601, float("nan")):
            self.assertRaises(ValueError, server.delay, "rcpt", seconds)
        self.assertEqual(self.code(), 250)


class Plain(CaptureMixin, unittest.TestCase):
    def test_the_mixin_serves_a_plain_unittest_too(self) -> None:
        with smtplib.SMTP(self.smtp_server.host, self.smtp_server.port, timeout=SECONDS) as client:
            client.sendmail(SENDER, [ANN], TEXT)
        self.assertEqual(len(self.smtp_server.wait_for(1)), 1)


class Around(SynchronousTestCase):
    def test_the_server_ends_with_its_test_and_the_classes_behind_are_set_up_too(self) -> None:
        class Behind(unittest.TestCase):
            is_set_up = False

            def setUp(self) -> None:
                self.is_set_up = True

        class One(CaptureMixin, Behind):
            def runTest(self) -> None:
                with socket.create_connection((self.smtp_server.host, self.smtp_server.port), SECONDS):
                    pass

        one, result = One(), unittest.TestResult()
        one.run(result)
        self.assertTrue(one.is_set_up)
        self.assertEqual((result.testsRun, result.errors, result.failures), (1, [], []))
        with self.assertRaises(OSError):
            socket.create_connection((one.smtp_server.host, one.smtp_server.port), SECONDS)
