"""The octets of each command and reply: what goes in is what a view, the server and the client read."""

from __future__ import annotations

import base64
import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.capture import CommandVerb, SmtpView, build
from mailserver.mail.address import UNPRINTABLE
from mailserver.smtp.client.limits import ClientLimits
from mailserver.smtp.client.replies import ReplyReader
from mailserver.smtp.events import Chunk, EndOfData
from tests.any_octets import any_octets
from tests.smtp.server.conversation import Conversation

CONTROLS = [*map(chr, range(32)), "\x7f", "\x85", "\u2028", "\u2029"]
WORDS = (
    st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=30)
    .map(lambda text: UNPRINTABLE.sub("", text).strip())
    .filter(lambda text: re.match(r"[245]\.\d+\.\d+(?: |\Z)", text) is None)
)
VALUES = st.text(st.sampled_from("!#+-;<>@AZaz09~é"), min_size=1, max_size=20)
LOCAL = st.text(st.sampled_from("abz09.!#é"), min_size=1, max_size=20)


class CommandLines(SynchronousTestCase):
    def test_each_is_read_as_what_it_is(self) -> None:
        for octets, verb, arguments in (
            (build.ehlo("a.example"), "EHLO", "a.example"), (build.helo("[192.0.2.1]"), "HELO", "[192.0.2.1]"), (build.lhlo("a"), "LHLO", "a"),
            (build.mail(""), "MAIL", "FROM:<>"), (build.rcpt("Postmaster"), "RCPT", "TO:<Postmaster>"), (build.data(), "DATA", ""),
            (build.bdat_command(7, last=True), "BDAT", "7 LAST"), (build.rset(), "RSET", ""), (build.noop(), "NOOP", ""), (build.noop("a b"), "NOOP", "a b"),
            (build.quit(), "QUIT", ""), (build.help("MAIL"), "HELP", "MAIL"), (build.vrfy("ann"), "VRFY", "ann"), (build.expn("all"), "EXPN", "all"),
            (build.starttls(), "STARTTLS", ""), (build.auth("login"), "AUTH", "LOGIN"), (build.auth("PLAIN", b"\0a\0b"), "AUTH", "PLAIN AGEAYg=="),
            (build.auth("EXTERNAL", b""), "AUTH", "EXTERNAL ="), (build.command("etrn", "#queue"), "ETRN", "#queue"),
        ):  # fmt: skip
            view = SmtpView(octets)
            self.assertEqual((view.command, view.arguments, len(view.rest)), (verb, arguments, 0), octets)
            self.assertTrue(view.is_complete and view.is_known_command, octets)
        self.assertEqual((build.auth_response(b"\0\xff"), build.auth_response(b""), build.auth_cancel()), (b"AP8=\r\n", b"\r\n", b"*\r\n"))

    def test_what_stands_for_a_parameter(self) -> None:
        octets = build.mail("a@b", size=0, body="7BIT", smtputf8=True, ret=None, requiretls=False, mt_priority=4)
        self.assertEqual(octets, b"MAIL FROM:<a@b> SIZE=0 BODY=7BIT SMTPUTF8 MT-PRIORITY=4\r\n")

    def test_no_control_character_gets_into_a_line(self) -> None:
        for control in CONTROLS:
            for text in (control, f"a{control}", f"a{control}b", f"{control}b"):
                for attempt in (
                    build.ehlo, build.helo, build.lhlo, build.mail, build.rcpt, build.noop, build.help, build.vrfy, build.expn, build.auth, build.command, build.greeting,
                    build.ehlo_reply, lambda text: build.command("NOOP", text), lambda text: build.mail("a@b", size=text), lambda text: build.rcpt("a@b", orcpt=text),
                    lambda text: build.mail("a@b", **{text: True}), lambda text: build.ehlo_reply("a", text),
                    lambda text: build.reply(550, "fine", text, enhanced=""), lambda text: build.reply(550, "a", enhanced=text), build.start_content,
                ):  # fmt: skip
                    if control == "\t" and text != "\t" and attempt in (build.start_content,):
                        continue
                    try:
                        octets = attempt(text)
                    except ValueError:
                        continue
                    self.assertEqual(control, "\t", repr(text))  # a tab in the text of a reply is text (RFC 5321 section 4.2)
                    self.assertTrue(SmtpView(octets).is_reply)

    def test_what_would_be_another_command_is_refused(self) -> None:
        for attempt in (
            lambda: build.mail("a@b> SIZE=1"), lambda: build.mail("a>b"), lambda: build.mail(" a@b"), lambda: build.mail('"a@b'), lambda: build.rcpt(""),
            lambda: build.mail("a@b", size="1 BODY=7BIT"), lambda: build.mail("a@b", x="a=b"), lambda: build.mail("a@b", x=""), lambda: build.mail("a@b", **{"a b": "c"}),
            lambda: build.ehlo("a b"), lambda: build.ehlo(""), lambda: build.ehlo("é"), lambda: build.vrfy(""), lambda: build.expn(""), lambda: build.noop(" a"),
            lambda: build.command("MAIL FROM"), lambda: build.command(""), lambda: build.command("250"), lambda: build.command("é"),
            lambda: build.bdat_command(-1), lambda: build.bdat_command(10**20), lambda: build.auth("A B"), lambda: build.auth(""), lambda: build.noop("\ud800"), lambda: build.noop("a\u202eb"),
        ):  # fmt: skip
            self.assertRaises(ValueError, attempt)

    @given(LOCAL, st.dictionaries(st.sampled_from(["SIZE", "BODY", "X-ONE", "MT-PRIORITY"]), VALUES | st.just(True)))
    def test_paths_and_parameters_come_back(self, local: str, parameters: dict[str, str | bool]) -> None:
        expected = tuple([(name, None if value is True else value) for name, value in parameters.items()])
        for octets, field in ((build.mail(f"{local}@b.example", **parameters), "reverse_path"), (build.rcpt(f"{local}@b.example", **parameters), "forward_path")):
            view = SmtpView(octets)
            self.assertEqual((view.field(field), view.parameters), (f"{local}@b.example", expected))

    @given(WORDS)
    def test_arguments_come_back(self, text: str) -> None:
        view = SmtpView(build.noop(text))
        self.assertEqual((view.command, view.arguments, view.is_complete), (CommandVerb.NOOP, text, True))

    @given(any_octets())
    def test_an_initial_response_comes_back(self, octets: bytes) -> None:
        view = SmtpView(build.auth("PLAIN", octets))
        self.assertEqual(base64.b64decode((view.initial_response or "").replace("=", "", 1) if not octets else view.initial_response or ""), octets)


class ContentOfMessages(SynchronousTestCase):
    @given(st.lists(st.sampled_from([b".", b"..", b"a", b"", b".\xff"]), max_size=6), any_octets())
    def test_the_server_reads_what_went_in(self, lines: list[bytes], chunk: bytes) -> None:
        octets = b"\r\n".join([b"Subject: x", b"", *lines, b""])
        begin = build.mail("a@b.example") + build.rcpt("c@d.example")
        for said in (begin + build.data() + build.content(octets), begin + build.bdat(octets[:5]) + build.bdat(octets[5:], last=True)):
            conversation = Conversation()
            conversation.say_hello()
            conversation.send(said)
            received = b"".join(bytes(event.data) for event in conversation.events if isinstance(event, Chunk))
            self.assertEqual(received, octets)
            self.assertTrue(any(isinstance(event, EndOfData) for event in conversation.events))
        view = SmtpView(build.bdat(chunk))
        self.assertEqual((view.chunk_size, view.rest.tobytes()), (len(chunk), chunk))

    def test_an_end_is_added_where_none_is(self) -> None:
        self.assertEqual(build.content(b".a"), b"..a\r\n.\r\n")
        self.assertEqual(build.content(b""), b".\r\n")
        self.assertEqual(build.bdat(b""), b"BDAT 0\r\n")


class ReplyLines(SynchronousTestCase):
    @given(st.integers(200, 599), st.lists(WORDS, min_size=1, max_size=5), st.booleans())
    def test_code_and_lines_come_back_to_the_view_and_the_client(self, code: int, lines: list[str], has_enhanced: bool) -> None:
        enhanced = f"{code // 100}.1.10" if has_enhanced and code // 100 != 3 else ""
        octets = build.reply(code, *lines, enhanced=enhanced)
        view = SmtpView(octets)
        self.assertEqual((view.reply_code, view.enhanced_code or "", view.reply_lines), (code, enhanced, tuple(lines)))
        self.assertEqual((view.is_multiline, view.is_complete, len(view.rest)), (len(lines) > 1, True, 0))
        reader = ReplyReader(ClientLimits())
        reader.append(octets)
        heard = reader.next_reply()
        assert heard is not None
        self.assertEqual((heard.code, heard.enhanced, len(heard.lines)), (code, enhanced, len(lines)))

    def test_each_reply_as_it_goes_out(self) -> None:
        for octets, said in (
            (build.reply(250), b"250 \r\n"),
            (build.reply(250, "a", "b"), b"250-a\r\n250 b\r\n"),
            (build.reply(550, "a", "b", enhanced="5.1.1"), b"550-5.1.1 a\r\n550 5.1.1 b\r\n"),
            (build.greeting("a.example"), b"220 a.example ESMTP\r\n"),
            (build.greeting("a.example", lmtp=True), b"220 a.example LMTP\r\n"),
            (build.ehlo_reply("a.example"), b"250 a.example\r\n"),
            (build.ehlo_reply("a.example", "SIZE 1", "AUTH PLAIN LOGIN"), b"250-a.example\r\n250-SIZE 1\r\n250 AUTH PLAIN LOGIN\r\n"),
            (build.challenge(b""), b"334 \r\n"),
            (build.challenge(b"Username:"), b"334 VXNlcm5hbWU6\r\n"),
            (build.start_content("go"), b"354 go\r\n"),
        ):
            self.assertEqual(octets, said)

    def test_what_is_no_reply_is_refused(self) -> None:
        for code in (-250, 0, 7, 99, 199, 600, 99999):
            self.assertRaises(ValueError, build.reply, code, "a")
        for code, enhanced in ((250, "5.0.0"), (550, "5.1"), (550, "5.1.1 "), (550, "5.1.1234"), (354, "3.0.0"), (550, "x")):
            self.assertRaises(ValueError, build.reply, code, "a", enhanced=enhanced)
        self.assertRaises(ValueError, build.ehlo_reply, "a.example", "")
        self.assertRaises(ValueError, build.ehlo_reply, "a example")
