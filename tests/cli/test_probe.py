"""``mailserver probe``: what the running server has seen, and the exit codes."""

import os

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.control.server import ControlServer
from tests.cli.support import CONFIGURATION, CommandCase
from tests.control.test_server import without_bytes_warning

SEEN = {
    "host": "mx.example", "address": "192.0.2.1", "port": 25, "from": "192.0.2.7", "route": "partner", "login": False,
    "demanded": "verified", "by": "mta-sts", "why": "the policy of example", "tls": "TLSv1.3 X", "version": "TLSv1.3", "cipher": "X",
    "group": "", "match": "WebPKI", "fault": "", "conclusion": "success", "verdict": "accepted", "reply": "250 2.1.5 Ok\x1b[2J",
    "ms": 12, "dialogue": ["C: MAIL FROM:<>", "S: 250 2.1.0 Ok"],
}  # fmt: skip


class Probe(CommandCase, TestCase):
    timeout = 30

    async def said(self, answer, *more):
        without_bytes_warning(self)
        self.configure(CONFIGURATION)
        asked = []

        async def probe(arguments):
            asked.append(arguments)
            return {"address": "user@example", **answer}

        server = ControlServer(os.path.join(self.data, "control.sock"), {"probe": probe})
        server.start(reactor)
        try:
            said = await deferToThread(self.command, "probe", "user@example", *more)
        finally:
            await server.stop()
        self.asked = asked[0]
        return said

    async def test_what_was_seen_is_told_without_escapes_and_that_it_was_real(self):
        said = await self.said({"verdict": "accepted", "attempts": [SEEN], "barred": []})
        self.assertEqual((said.code, self.asked), (0, {"address": "user@example", "sender": "<>", "seconds": 60}))
        self.assertIn("a real RCPT at a real host; no message follows", said.err)
        self.assertIn("mx.example[192.0.2.1]:25, route partner, from 192.0.2.7: 250 2.1.5 Ok", said.out)
        self.assertIn("TLS: verified, by mta-sts (the policy of example); TLSv1.3 X; success", said.out)
        self.assertIn("user@example: accepted", said.out)
        self.assertNotIn("\x1b", said.out)

    async def test_the_exit_code_is_the_verdict(self):
        for verdict, code in (("accepted", 0), ("refused", 1), ("deferred", 75), ("unreachable", 75)):
            said = await self.said({"verdict": verdict, "fault": "x"}, "--json", "--sender", "a@b.example", "--seconds", "5")
            self.assertEqual((said.code, said.json["verdict"], said.err), (code, verdict, ""))
        self.assertEqual(self.asked, {"address": "user@example", "sender": "a@b.example", "seconds": 5})
