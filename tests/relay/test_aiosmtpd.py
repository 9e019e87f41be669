"""The relay with aiosmtpd on the other side: no PIPELINING, no enhanced codes, one command at a time."""

import glob
import subprocess
import sys

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from mailserver.mail.address import Address
from mailserver.mail.answers import Delivered, Failed, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Peer, Recipient
from mailserver.mail.parcel import Destination
from tests.ports import free_port
from tests.relay.test_sockets import SocketCase, listens
from tests.scenarios.support import wait_until

BODY = b".one\r\n..two\r\n.\r\nthree\r\n"


class Aiosmtpd(SocketCase):
    async def served(self, *options):
        """A relay to a fresh aiosmtpd that keeps its mail in a Maildir."""
        self.port, self.maildir = free_port(), self.mktemp()
        command = [sys.executable, "-m", "aiosmtpd", "-n", *options, "-l", f"127.0.0.1:{self.port}"]
        process = subprocess.Popen([*command, "-c", "aiosmtpd.handlers.Mailbox", self.maildir], stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        await deferToThread(wait_until, lambda: listens(self.port), lambda: "aiosmtpd does not listen")
        return await self.relay()

    def kept(self):
        texts = []
        for path in glob.glob(f"{self.maildir}/new/*"):
            with open(path, "rb") as file:
                texts.append(file.read())
        return texts

    async def send(self, relay, *recipients, sender="sender@example.net", utf8=False):
        people = tuple(Recipient(Address.parse(text, utf8=True)) for text in recipients)
        parameters = MailParameters(smtputf8=utf8, body="8BITMIME" if utf8 else "7BIT")
        envelope = Envelope("id", Peer("192.0.2.1", 1, "mx"), Address.parse(sender, utf8=True), people, 0.0, parameters)
        destinations = [Destination(n, one, Remote(one.address)) for n, one in enumerate(people)]
        return await relay.deliver(envelope, Content.of(b"Subject: dots\r\n\r\n" + BODY), destinations)

    async def test_it_gets_every_message_once_and_whole(self):
        relay = await self.served()
        sent = [Deferred.fromCoroutine(self.send(relay, "a@example.org", "b@example.org")) for _ in range(30)]
        for outcomes in await gatherResults(sent):
            self.assertEqual([type(outcomes[n]) for n in (0, 1)], [Delivered, Delivered])
        texts = self.kept()
        self.assertEqual(len(texts), 30)
        for text in texts:
            self.assertTrue(text.replace(b"\r\n", b"\n").endswith(b"\n\n" + BODY.replace(b"\r\n", b"\n")), text)
        self.assertGreater(relay.connections.pool.counts.reused, 0)

    async def test_an_address_that_it_cannot_take_is_returned_and_never_changed(self):
        outcomes = await self.send(await self.served(), "jürgen@example.org", utf8=True)
        self.assertEqual((type(outcomes[0]), outcomes[0].reply.enhanced), (Failed, "5.6.7"))
        self.assertEqual(self.kept(), [])

    async def test_with_smtputf8_offered_the_address_travels_as_it_is(self):
        outcomes = await self.send(await self.served("-u"), "jürgen@example.org", utf8=True)
        self.assertIsInstance(outcomes[0], Delivered)
        [text] = self.kept()
        self.assertIn(b"j=C3=BCrgen=40example=2Eorg", text)  # as aiosmtpd writes it into its X-RcptTo
