"""The relay logs in to a smarthost: aiosmtpd over STARTTLS and implicit TLS, and peers that do not let it in."""

import logging
import ssl
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from mailserver.mail.answers import Delayed, Delivered
from tests.ports import free_port
from tests.relay.test_sockets import ServerSide, Sink, SocketCase, certificate
from tests.tls.authority import Authority

logging.getLogger("mail.log").addHandler(logging.NullHandler())  # aiosmtpd's: it finds things old-fashioned
USER, PASSWORD = "relay@us.example", "sécret"


class Handler:
    def __init__(self):
        self.messages = []

    async def handle_DATA(self, server, session, envelope):
        self.messages.append((session.auth_data, session.ssl is not None, envelope.rcpt_tos))
        return "250 2.0.0 Kept"


class LoginCase(SocketCase):
    def setUp(self):
        super().setUp()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.password = self.folder / "password"
        self.password.write_text(f"{PASSWORD}\n")

    async def logging_in(self, **options):
        return await self.relay(**{"tls": "required", "username": USER, "password_file": str(self.password), **options})

    def assertDeferred(self, outcome, *words):
        self.assertIsInstance(outcome, Delayed)
        for one in words:
            self.assertIn(one, str(outcome.reply))


class Aiosmtpd(LoginCase):
    async def serve(self, implicit=False, **more):
        Authority().leaf("sink.example").write(str(self.folder))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        self.handler, self.asked = Handler(), []
        tls = {"ssl_context": context} if implicit else {"tls_context": context, "require_starttls": True}
        self.port = free_port()
        controller = Controller(
            self.handler,
            hostname="127.0.0.1",
            port=self.port,
            ready_timeout=20,
            authenticator=self.authenticate,
            auth_required=not implicit,  # it knows nothing of the implicit kind
            auth_require_tls=not implicit,
            **tls,
            **more,
        )
        await deferToThread(controller.start)
        self.addCleanup(deferToThread, controller.stop)

    def authenticate(self, server, session, envelope, mechanism, data):
        self.asked.append(mechanism)
        right = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=right, handled=False, auth_data=data.login if right else None)

    async def test_a_message_is_sent_after_a_login_once_for_each_connection(self):
        await self.serve()
        relay = await self.logging_in()
        for _ in range(3):
            self.assertIsInstance(await self.deliver(relay), Delivered)
        self.assertEqual(self.handler.messages, [(USER.encode(), True, ["user@example.org"])] * 3)
        self.assertEqual(self.asked, ["PLAIN"])

    async def test_another_mechanism_can_be_wanted(self):
        await self.serve()
        self.assertIsInstance(await self.deliver(await self.logging_in(mechanisms=["LOGIN"])), Delivered)
        self.assertEqual(self.asked, ["LOGIN"])

    async def test_implicit_tls(self):
        # RFC 8314 section 3.3
        await self.serve(implicit=True)
        outcome = await self.deliver(await self.logging_in(implicit_tls=True))
        self.assertIsInstance(outcome, Delivered)
        self.assertRegex(outcome.note, r"TLSv1\.[23]")
        self.assertEqual([message[0] for message in self.handler.messages], [USER.encode()])

    async def test_implicit_tls_to_a_port_without_it_waits(self):
        relay = await self.logging_in(implicit_tls=True)  # the sink greets in the clear
        self.assertDeferred(await self.deliver(relay), "4.7.5", "TLS could not be established: wrong version number")

    async def test_a_certificate_that_is_not_the_hosts_gets_no_password(self):
        await self.serve()
        self.assertDeferred(await self.deliver(await self.logging_in(tls="verified")), "4.7.5")
        await self.serve(implicit=True)
        self.assertDeferred(await self.deliver(await self.logging_in(tls="verified", implicit_tls=True)), "4.7.5")
        self.assertEqual(self.asked, [])

    async def test_a_wrong_password_waits_and_a_new_one_needs_no_restart(self):
        await self.serve()
        self.password.write_text("wrong\n")
        relay = await self.logging_in(probe="1ms")
        self.assertDeferred(await self.deliver(relay), "451 4.7.0 The host does not let us log in: 535 5.7.8")
        self.password.write_text(f"{PASSWORD}\n")
        outcome = None
        while not isinstance(outcome, Delivered):  # until the next probe of the host is due
            await deferLater(reactor, 0)
            outcome = await self.deliver(relay)

    async def test_a_password_that_cannot_be_read_waits(self):
        await self.serve()
        self.password.write_text("\n")
        self.assertDeferred(await self.deliver(await self.logging_in()), "4.3.5 The password for the host cannot be read")
        self.flushLoggedErrors()
        self.password.unlink()
        self.assertDeferred(await self.deliver(await self.logging_in()), "4.3.5")
        self.flushLoggedErrors()


class Offers(LoginCase):
    async def test_a_host_that_offers_no_login_gets_no_mail(self):
        self.sink.tls = ServerSide(certificate("sink.example"))
        self.assertDeferred(await self.deliver(await self.logging_in()), "4.7.0 The host offers no way to log in that we know")
        self.assertEqual(self.sink.messages, [])

    async def test_a_host_without_starttls_hears_no_password(self):
        heard = []
        self.patch(Sink, "line", lambda sink, line, before=Sink.line: (heard.append(line), before(sink, line)))
        self.assertDeferred(await self.deliver(await self.logging_in()), "4.7.4")
        self.assertEqual(heard[0][:4], b"EHLO")
        self.assertNotIn(b"AUTH", b"".join(heard).upper())
