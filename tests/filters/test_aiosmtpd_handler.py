"""What a handler of aiosmtpd answers, as a verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as some
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailserver.filters.aiosmtpd_handler import AiosmtpdFactory, AiosmtpdHandler, AiosmtpdOptions, _verdict
from mailserver.mail.answers import Defer, Disconnect, Pass, Refuse
from mailserver.mail.content import Content
from mailserver.mail.envelope import MailParameters, Peer
from mailserver.testing import FilterCase
from tests.plugins.test_asyncio_world import in_a_loop


class Statuses(SynchronousTestCase):
    def test_each_class_has_its_verdict_and_the_words_are_the_reason(self) -> None:
        for status, verdict in (
            ("250 OK", Pass()),
            ("250", Pass()),
            ("251 2.1.5 will forward", Pass()),
            ("451 later", Defer("later")),
            ("450 4.7.1 Not now", Defer("Not now", "4.7.1")),
            ("550 5.1.1 nobody", Refuse("nobody", "5.1.1")),
            ("554 no", Refuse("no")),
            ("554", Refuse("handle_RCPT: 554")),
            ("550-5.7.1 first\r\n550 5.7.1 second", Refuse("first\r\n550 5.7.1 second", "5.7.1")),
            ("550 4.7.1 a code of another class", Refuse("a code of another class")),
        ):
            self.assertEqual(_verdict("handle_RCPT", status), verdict)

    def test_421_hangs_up_where_that_can_be(self) -> None:
        for hook in ("handle_EHLO", "handle_HELO", "handle_MAIL"):
            self.assertEqual(_verdict(hook, "421 4.7.0 go"), Disconnect("go"))
        self.assertEqual(_verdict("handle_DATA", "421 go"), Defer("go"))

    def test_what_is_no_status_is_a_failure(self) -> None:
        for status in (None, 250, b"250 OK", "", "OK", "354 go on", "199 x", "600 x", "25 OK", ["250 OK"], "250OKAY"):
            with self.assertRaisesRegex(ValueError, "handle_DATA has returned"):
                _verdict("handle_DATA", status)

    @given(some.one_of(some.text(), some.from_regex(r"[0-9]{3}[ -].*")))
    def test_whatever_the_text_it_is_a_verdict_or_a_failure(self, status: str) -> None:
        try:
            self.assertIsInstance(_verdict("handle_MAIL", status), Pass | Defer | Refuse | Disconnect)
        except ValueError as error:
            self.assertIn("no status", str(error))


class Picky:
    def __init__(self, *words: str) -> None:
        self.words = words


class WithCli(Picky):
    @classmethod
    def from_cli(cls, parser: object, *words: str) -> WithCli:
        if not words:
            parser.error("a word is required")  # type: ignore[attr-defined]
        return cls("made", *words)


class Made(FilterCase):
    def handler(self, name: str, *arguments: str) -> Picky:
        options = AiosmtpdOptions(handler=f"{__name__}:{name}", arguments=arguments)
        return AiosmtpdFactory().build(options, self.services)._handler  # type: ignore[no-any-return]

    def test_with_its_arguments_or_by_its_from_cli(self) -> None:
        self.assertEqual(self.handler("Picky", "a", "b").words, ("a", "b"))
        self.assertEqual(self.handler("WithCli", "a").words, ("made", "a"))

    def test_its_own_complaint_about_them_is_an_error_and_ends_no_program(self) -> None:
        with self.assertRaisesRegex(ValueError, "a word is required"):
            self.handler("WithCli")


class Heard:
    """A handler that keeps what it is told, and answers what the test wants."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {}

    async def answer(self, hook: str, *told: Any) -> Any:
        self.told.append((hook, *told))
        await asyncio.sleep(0)
        return self.answers.get(hook, "250 OK")

    async def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str) -> Any:
        return await self.answer("EHLO", hostname, session.extended_smtp, session.host_name)

    async def handle_HELO(self, server: Any, session: Any, envelope: Any, hostname: str) -> Any:
        return await self.answer("HELO", hostname, session.extended_smtp)

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, mail_options: list[str]) -> Any:
        return await self.answer("MAIL", address, mail_options, envelope.smtp_utf8, session.peer, session.authenticated)

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, rcpt_options: list[str]) -> Any:
        return await self.answer("RCPT", address, envelope.mail_from, session.host_name)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> Any:
        new = self.answers.get("content")
        told = await self.answer("DATA", envelope.mail_from, envelope.rcpt_tos, envelope.content, server.hostname)
        envelope.content = envelope.content if new is None else new
        return told


class WithLines(Heard):
    async def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]) -> Any:
        self.told.append(("EHLO", hostname, responses))
        return self.answers["EHLO"]


class DataAlone:
    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        return "554 5.7.1 " + " ".join([envelope.mail_from or "nobody", *envelope.rcpt_tos])


class WithMore(DataAlone):
    async def handle_RSET(self, server: Any, session: Any, envelope: Any) -> str:
        return "250 OK"

    async def handle_QUIT(self, server: Any, session: Any, envelope: Any) -> str:
        return "221 Bye"


class AtItsStages(FilterCase):
    def filter(self, kind: type, **options: Any) -> AiosmtpdHandler:
        options = {"handler": f"{__name__}:{kind.__name__}", **options}
        return AiosmtpdFactory().build(AiosmtpdOptions(**options), self.services)

    def asked(self, begin: Callable[[], Awaitable[Any]]) -> Any:
        """The answer, or the error, with asyncio's loop running."""
        [answer] = in_a_loop(lambda: Deferred.fromCoroutine(begin()))  # type: ignore[arg-type]
        return answer

    async def whole(self, component: AiosmtpdHandler, *, peer: Peer | None = None, **facts: Any) -> Any:
        """All stages of a message, as the core goes through them: the first verdict that is no pass."""
        peer = peer or self.peer()
        verdict: Any = Pass()
        for stage in (replace(peer, hello="", hello_verb=""), peer):
            verdict = await component.judge_peer(stage)
            if not isinstance(verdict, Pass):
                return verdict
            peer.notes.keep("tested", verdict.notes)
        envelope = self.envelope(peer=peer, **facts)
        verdict = await component.judge_sender(envelope)
        if not isinstance(verdict, Pass):
            return verdict
        peer.notes.keep("tested", verdict.notes)
        for recipient in envelope.recipients:
            if not isinstance(verdict := await component.judge_recipient(envelope, recipient), Pass):
                return verdict
        return await component.judge_content(envelope, self.content())

    def told(self, component: AiosmtpdHandler) -> Any:
        return component._handler.told

    def test_a_handler_is_told_what_aiosmtpd_would_tell_it(self) -> None:
        component = self.filter(Heard)
        parameters = MailParameters(size=100, body="8BITMIME", smtputf8=True)
        found = self.asked(lambda: self.whole(component, recipients=["a@example.org", "b@example.org"], parameters=parameters))
        self.assertEqual(found, Pass())
        name, sender = "client.example.net", "sender@example.net"
        self.assertEqual(self.told(component), [
            ("EHLO", name, True, None),
            ("MAIL", sender, ["SIZE=100", "BODY=8BITMIME", "SMTPUTF8"], True, ("192.0.2.25", 40025), False),
            ("RCPT", "a@example.org", sender, name), ("RCPT", "b@example.org", sender, name),
            ("DATA", sender, ["a@example.org", "b@example.org"], b"Subject: test\r\n\r\nHello.\r\n", "mail.example.test"),
        ])  # fmt: skip

    def test_at_the_start_the_log_names_the_hooks_that_are_never_called(self) -> None:
        for kind in (WithMore, DataAlone):
            component = self.filter(kind)
            with capturedLogs() as logged:
                in_a_loop(lambda component=component: self.started(component))
            said = [formatEvent(event) for event in logged if event.get("log_level") is LogLevel.warn]
            named = ["the filter tested: its handler's handle_RSET, handle_QUIT are not called here"]
            self.assertEqual(said, named if kind is WithMore else [])

    def started(self, component: AiosmtpdHandler) -> Deferred[None]:
        starting = Deferred.fromCoroutine(component.start())
        self.clock.advance(0)
        return starting

    def test_a_null_sender_an_old_client_and_one_who_has_logged_in(self) -> None:
        component = self.filter(Heard)
        peer = replace(self.peer(login="ann@example.org"), hello_verb="HELO")
        self.assertEqual(self.asked(lambda: self.whole(component, peer=peer, sender=None)), Pass())
        hello, mail, *_ = self.told(component)
        self.assertEqual((hello, mail[1:3], mail[-1]), (("HELO", "client.example.net", False), ("", []), True))

    def test_what_it_says_at_each_stage_is_the_verdict_there(self) -> None:
        for hook, status, verdict in (
            ("EHLO", "421 go", Disconnect("go")), ("EHLO", "550 no", Refuse("no")), ("MAIL", "451 later", Defer("later")),
            ("RCPT", "550 5.1.1 nobody", Refuse("nobody", "5.1.1")), ("DATA", "554 5.7.1 spam", Refuse("spam", "5.7.1")),
        ):  # fmt: skip
            component: Any = self.filter(Heard)
            component._handler.answers[hook] = status
            self.assertEqual(self.asked(lambda component=component: self.whole(component)), verdict)
            self.assertEqual(self.told(component)[-1][0], hook)

    def test_of_a_reply_in_lines_to_ehlo_the_last_counts(self) -> None:
        for lines, verdict in ((["250-SIZE", "250 HELP"], Pass()), (["250-x", "554 no"], Refuse("no")), ([], Pass())):
            component: Any = self.filter(WithLines)
            component._handler.answers["EHLO"] = lines
            self.assertEqual(self.asked(lambda component=component: self.whole(component)), verdict)
            self.assertEqual(self.told(component)[0], ("EHLO", "client.example.net", []))
        component = self.filter(Heard)
        component._handler.answers["MAIL"] = ["250 OK"]
        self.assertIsInstance(self.asked(lambda: self.whole(component)), ValueError)

    def test_what_a_handler_does_not_have_passes(self) -> None:
        component = self.filter(DataAlone)
        self.assertEqual(self.asked(lambda: self.whole(component)), Refuse("sender@example.net user@example.org", "5.7.1"))

    def test_a_message_of_a_program_has_no_connection(self) -> None:
        component = self.filter(DataAlone)
        for sender, words in (("sender@example.net", "sender@example.net user@example.org"), (None, "nobody user@example.org")):
            verdict = self.asked(lambda sender=sender: component.judge_content(self.envelope(sender), self.content()))
            self.assertEqual(verdict, Refuse(words, "5.7.1"))

    def test_a_message_that_is_too_large_or_changed_is_a_failure(self) -> None:
        octets = b"".join(self.content().chunks())
        component: Any = self.filter(Heard, content_bytes=len(octets) - 1)
        self.assertIn("the handler gets 24 at most", str(self.asked(lambda: self.whole(component))))
        for new, is_fault in ((octets, False), (bytes(bytearray(octets)), False), (b"other", True)):
            component = self.filter(Heard, content_bytes=len(octets))
            component._handler.answers["content"] = new
            found = self.asked(lambda component=component: self.whole(component))
            self.assertEqual("has changed the content" in str(found), is_fault, found)

    def test_one_in_a_file_is_given_whole(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"Subject: x\r\n\r\nfile\r\n")
        component = self.filter(Heard)
        self.assertEqual(self.asked(lambda: component.judge_content(self.envelope(), Content.at(path, 20))), Pass())
        self.assertEqual(self.told(component)[0][3], b"Subject: x\r\n\r\nfile\r\n")
