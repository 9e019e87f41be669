"""What a handler of aiosmtpd answers, as a verdict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from mailserver.filters.aiosmtpd_handler import AiosmtpdFactory, AiosmtpdOptions, _verdict
from mailserver.mail.answers import Defer, Disconnect, Pass, Refuse
from mailserver.testing import FilterCase


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
