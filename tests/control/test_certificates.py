"""Who asks for a certificate waits for a bounded time, and ends nothing by that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.acme.progress import CertificateProgress
from mailserver.acme.service import CannotBeDone
from mailserver.acme.visit import Visited
from mailserver.control.certificates import ANSWER_SECONDS, CertificateCommands
from mailserver.control.server import CommandRefused


class Asking(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.notes, self.ended = Clock(), [], []
        self.renewal: Deferred[Any] = Deferred()
        server: Any = SimpleNamespace(
            reactor=self.clock, ids=SimpleNamespace(next=lambda: "ID"),
            acme=SimpleNamespace(REFUSALS=(CannotBeDone,), renew=self.renew, last={}),
            steps=SimpleNamespace(note=lambda *words, **named: self.notes.append((words, named))),
        )  # fmt: skip
        self.commands = CertificateCommands(server).commands()

    async def renew(self, name: str) -> Any:
        try:
            return await self.renewal
        except CancelledError:
            self.ended.append(name)
            raise

    def ask(self, name: str, **arguments: Any) -> Deferred[dict[str, Any]]:
        return Deferred.fromCoroutine(self.commands[name](arguments))

    def test_the_answer_has_the_certificate_and_the_log_who_wanted_it(self) -> None:
        asked = self.ask("certificate.renew", by="root")
        self.renewal.callback(Visited("mail", None, CertificateProgress(), 0.0, False, True))
        self.assertEqual(self.successResultOf(asked)["certificate"]["name"], "mail")
        self.assertEqual(self.notes, [(("ID", "certificate"), {"name": "mail", "what": "renewed", "by": "root"})])

    def test_what_takes_too_long_goes_on_and_a_failure_is_told_by_its_words(self) -> None:
        asked = self.ask("certificate.renew")
        self.clock.advance(ANSWER_SECONDS + 1)
        self.assertIn("it goes on", self.failureResultOf(asked, CommandRefused).getErrorMessage())
        self.assertEqual(self.ended, [])
        self.renewal.callback(None)
        self.renewal = Deferred()
        asked = self.ask("certificate.renew")
        self.renewal.errback(CannotBeDone("nobody is there"))
        self.assertIn("nobody is there", self.failureResultOf(asked, CommandRefused).getErrorMessage())
        self.assertIn("keyCompromise", self.failureResultOf(self.ask("certificate.revoke", reason="x"), CommandRefused).getErrorMessage())
