"""One command or reply in a buffer."""

from __future__ import annotations

import mmap
import tempfile
import tracemalloc

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.capture import FIELD_NAMES, SmtpView
from mailserver.capture.view import SUMMARY_LENGTH
from mailserver.mail.address import Address
from mailserver.smtp.events import Mail
from mailserver.smtp.grammar import SOURCE_ROUTE
from mailserver.smtp.server.commands import command_text, parse_mail
from tests.any_octets import any_octets
from tests.fuzzing.targets import view as look_at
from tests.smtp.server.conversation import EVERYTHING

PIECES = st.lists(
    st.sampled_from(
        [b"250", b"-", b" ", b"\r\n", b"\n", b"\r", b"MAIL", b"RCPT", b" FROM:", b" TO:", b"<", b">", b'"', b"\\", b"a@b", b"2.0.0", b"AUTH",
         b"BDAT ", b"LAST", b"=", b"\xff", b"\0", "é".encode(), b"\t", b"\x1b[2J"]
    ),
    max_size=20,
).map(b"".join)  # fmt: skip


class Replies(SynchronousTestCase):
    def test_a_line_in_its_parts(self) -> None:
        for octets, code, enhanced, lines in (
            (b"250 OK\r\n", 250, None, ("OK",)),
            (b"250 2.1.0 OK\r\n", 250, "2.1.0", ("OK",)),
            (b"250 2.1.0\r\n", 250, "2.1.0", ("",)),
            (b"250\r\n", 250, None, ("",)),
            (b"250 \r\n", 250, None, ("",)),
            (b"354 2.0.0 odd\r\n", 354, None, ("2.0.0 odd",)),  # another class: words
            (b"250 2.0.0.1 version\r\n", 250, None, ("2.0.0.1 version",)),
            (b"550 5.1.1 no\n", 550, "5.1.1", ("no",)),
        ):
            view = SmtpView(octets)
            self.assertTrue(view.is_reply and view.is_complete and not view.is_multiline, octets)
            self.assertEqual((view.reply_code, view.enhanced_code, view.reply_lines), (code, enhanced, lines), octets)
            self.assertIsNone(view.command)
            self.assertFalse(view.is_command)

    def test_several_lines_are_one_reply_and_what_follows_is_the_rest(self) -> None:
        view = SmtpView(b"250-a\r\n250-SIZE 10\r\n250 \xc3\xa9\r\n354 go\r\n")
        self.assertTrue(view.is_multiline and view.is_complete)
        self.assertEqual(view.reply_text, "a\nSIZE 10\né")
        self.assertEqual([one.tobytes() for one in view.reply_octets], [b"a", b"SIZE 10", b"\xc3\xa9"])
        self.assertEqual(view.raw.tobytes() + view.rest.tobytes(), b"250-a\r\n250-SIZE 10\r\n250 \xc3\xa9\r\n354 go\r\n")
        self.assertEqual(SmtpView(view.rest).reply_code, 354)

    def test_the_enhanced_code_of_each_line_is_no_text(self) -> None:
        view = SmtpView(b"550-5.7.1 one\r\n550-5.7.1\r\n550-5.7.10 other\r\n550 5.7.1 two\r\n")
        self.assertEqual((view.enhanced_code, view.reply_lines), ("5.7.1", ("one", "", "5.7.10 other", "two")))

    def test_a_code_alone_does_not_take_its_enhanced_code_from_the_next_line(self) -> None:
        for octets in (b"250\n2.1.1 x\n", b"250\r\n2.1.1 x\r\n", b"250 \r\n2.1.1 x\r\n"):
            self.assertEqual((SmtpView(octets).enhanced_code, SmtpView(octets).reply_lines), (None, ("",)))

    def test_of_two_codes_the_last_lines_counts(self) -> None:
        view = SmtpView(b"250-fine\r\n550 5.1.1 not fine\r\n")
        self.assertEqual((view.reply_code, view.enhanced_code), (550, "5.1.1"))

    def test_a_cut_reply_is_not_complete(self) -> None:
        whole = b"250-2.0.0 a\r\n250 2.0.0 b\r\n"
        for length in range(3, len(whole)):
            if whole[:length] in (b"250", b"250-2.0.0 a\r\n2", b"250-2.0.0 a\r\n25") or length > 3:
                view = SmtpView(whole[:length])
                self.assertTrue(view.is_reply)
                self.assertFalse(view.is_complete, whole[:length])
        self.assertTrue(SmtpView(whole).is_complete)
        self.assertFalse(SmtpView(b"250-a\r\nMAIL FROM:<>\r\n").is_complete)
        self.assertEqual(SmtpView(b"250-a\r\nMAIL FROM:<>\r\n").rest.tobytes(), b"MAIL FROM:<>\r\n")

    def test_what_is_no_code_is_no_reply(self) -> None:
        for octets in (b"", b"25", b"000 a\r\n", b"199 a\r\n", b"600 a\r\n", b"2500 a\r\n", b"250_a\r\n", "250é".encode(), b" 250 a\r\n", "２５０ a".encode()):
            self.assertFalse(SmtpView(octets).is_reply, octets)
            self.assertIsNone(SmtpView(octets).reply_code)
            self.assertIsNone(SmtpView(octets).reply_text)


class Commands(SynchronousTestCase):
    def test_verb_and_arguments(self) -> None:
        for octets, verb, arguments in (
            (b"ehlo client.example\r\n", "EHLO", "client.example"),
            (b"NOOP\r\n", "NOOP", ""),
            (b"NOOP", "NOOP", ""),
            (b" \tQuit \r\n", "QUIT", ""),
            (b"VRFY\t a  b \t\r\n", "VRFY", "a  b"),
            (b"X-ODD thing\n", "X-ODD", "thing"),
            (b"HELP \xff\r\n", "HELP", "\\xff"),
        ):
            view = SmtpView(octets)
            self.assertEqual((view.command, view.arguments), (verb, arguments), octets)
            self.assertTrue(view.is_command)
        self.assertTrue(SmtpView(b"noop\r\n").is_known_command)
        self.assertFalse(SmtpView(b"X-ODD thing\r\n").is_known_command)

    def test_no_verb_no_command(self) -> None:
        for octets in (b"", b"\r\n", b".\r\n", b"MAIL:x\r\n", b"dGVzdA==\r\n", b"\x16\x03\x01\x02", b"NOOP\0\r\n", b"NOOP\rQUIT\r\n"):
            view = SmtpView(octets)
            self.assertEqual((view.command, view.arguments, view.is_command), (None, None, False), octets)

    def test_paths_and_parameters(self) -> None:
        for octets, path, parameters in (
            (b"MAIL FROM:<>\r\n", "", ()),
            (b"mail from:<a@b>\r\n", "a@b", ()),
            (b"MAIL FROM: a@b size=1\r\n", "a@b", (("SIZE", "1"),)),
            (b"MAIL FROM:<a@b> SIZE=1 AUTH=<> SMTPUTF8\r\n", "a@b", (("SIZE", "1"), ("AUTH", "<>"), ("SMTPUTF8", None))),
            (b"MAIL\tFROM:\t<a@b>\tSIZE=1\tX\r\n", "a@b", (("SIZE", "1"), ("X", None))),
            (b"MAIL FROM:<a@b> X= X=2\r\n", "a@b", (("X", ""), ("X", "2"))),
            (b'MAIL FROM:<"a> b"@c> BODY=7BIT\r\n', '"a> b"@c', (("BODY", "7BIT"),)),
            ("MAIL FROM:<é@b>\r\n".encode(), "é@b", ()),
            (b"MAIL FROM:<\xe9@b>\r\n", "\\xe9@b", ()),
            (b"MAIL FROM:<@r1,@r2:a@b>\r\n", "@r1,@r2:a@b", ()),
            (b"MAIL FROM:>x<\r\n", None, ()),
            (b"MAIL FROM:<a@b\r\n", None, ()),
            (b"MAIL TO:<a@b>\r\n", None, ()),
            (b"VRFY FROM:<a@b>\r\n", None, ()),
        ):
            view = SmtpView(octets)
            self.assertEqual((view.reverse_path, view.parameters), (path, parameters), octets)
            self.assertIsNone(view.forward_path)
        view = SmtpView(b"RCPT TO:<b@c> NOTIFY=NEVER ORCPT=rfc822;b+40c\r\n")
        self.assertEqual((view.forward_path, view.reverse_path), ("b@c", None))
        self.assertEqual(view.parameters, (("NOTIFY", "NEVER"), ("ORCPT", "rfc822;b+40c")))

    def test_a_chunk_and_its_size(self) -> None:
        for octets, size, last in (
            (b"BDAT 12\r\n", 12, False), (b"bdat 0 last\r\n", 0, True), (b"BDAT -1\r\n", None, None), (b"BDAT " + b"9" * 5000, None, None),
            (b"BDAT\r\n", None, None), ("BDAT ١\r\n".encode(), None, None), (b"NOOP 12\r\n", None, None),
        ):  # fmt: skip
            view = SmtpView(octets)
            self.assertEqual((view.chunk_size, view.is_last_chunk), (size, last), octets)

    def test_a_login(self) -> None:
        view = SmtpView(b"auth plain AGFubgBzZWNyZXQ=\r\n")
        self.assertEqual((view.mechanism, view.initial_response), ("PLAIN", "AGFubgBzZWNyZXQ="))
        self.assertIsNone(SmtpView(b"AUTH LOGIN\r\n").initial_response)


class ByName(SynchronousTestCase):
    def test_each_field_is_the_attribute(self) -> None:
        view = SmtpView(b"MAIL FROM:<> SIZE=1\r\n")
        for name in FIELD_NAMES:
            self.assertEqual(view.field(name), getattr(view, name))
        self.assertEqual(list(view.fields()), ["is_reply", "is_complete", "is_multiline", "command", "arguments", "reverse_path", "parameters", "text"])

    def test_a_name_that_is_none_is_the_callers_mistake(self) -> None:
        for name in ("", "mailfrom", "_whole", "__class__"):
            self.assertRaises(KeyError, SmtpView(b"").field, name)
            self.assertRaises(KeyError, SmtpView(b"").octets, name)
        self.assertRaises(TypeError, SmtpView, "text")


class ForPeople(SynchronousTestCase):
    def test_nothing_reaches_the_terminal_raw(self) -> None:
        for octets in (b"NOOP \x1b[2J\r\n", "250 \u202eevil\r\n".encode(), b"550-\x07\r\n550 \x9b\r\n", b"\x1b]0;x\x07\r\n", b"a\rb\r\n"):
            for said in (SmtpView(octets).summary(), *SmtpView(octets).show().split("\n"), repr(SmtpView(octets))):
                self.assertTrue(said.isprintable(), said)
                said.encode()

    def test_what_auth_says_is_hidden_unless_asked_for(self) -> None:
        for octets in (b"AUTH PLAIN c2VjcmV0\r\n", b"auth plain  c2VjcmV0", b"AUTH PLAIN c2VjcmV0 !\xff\r\n", b" AUTH LOGIN\tc2VjcmV0\r\n"):
            view = SmtpView(octets)
            for said in (view.summary(), view.show(), repr(view)):
                self.assertNotIn("c2Vj", said)
                self.assertIn("****", said)
            self.assertIn("c2VjcmV0", view.summary(secrets=True))
            self.assertIn("c2VjcmV0", view.show(secrets=True))

    def test_a_summary_is_short_however_long_the_line(self) -> None:
        for octets in (b"NOOP " + b"x" * 100_000, "NOOP {}".format("é" * 100_000).encode(), b"AUTH PLAIN" + b" " * 100_000 + b"x"):
            self.assertLess(len(SmtpView(octets).summary()), SUMMARY_LENGTH + 20)

    def test_a_line_for_each_field(self) -> None:
        for octets, lines in (
            (b"MAIL FROM:<a@b> SIZE=1 X=\x1b SMTPUTF8\r\n", [
                "is_complete      yes", "command          MAIL", "arguments        FROM:<a@b> SIZE=1 X=\\x1b SMTPUTF8", "reverse_path     <a@b>",
                "parameters       SIZE=1 X=\\x1b SMTPUTF8",
            ]),
            (b"AUTH PLAIN c2VjcmV0", ["command          AUTH", "arguments        PLAIN ****", "mechanism        PLAIN", "initial_response ****"]),
            (b"250-2.0.0 a\r\n250 2.0.0 b\r\n", [
                "is_reply         yes", "is_complete      yes", "is_multiline     yes", "reply_code       250 (What was asked for is done)",
                "enhanced_code    2.0.0", "reply_text       a / b",
            ]),
            (b".\r\n", ["is_complete      yes", "text             ."]),
        ):  # fmt: skip
            self.assertEqual(SmtpView(octets).show().split("\n"), lines)

    def test_the_null_path_can_be_seen(self) -> None:
        self.assertIn("reverse_path     <>", SmtpView(b"MAIL FROM:<>\r\n").show())


class AnyOctets(SynchronousTestCase):
    @given(any_octets() | PIECES)
    @example(b"250\xc3\xa9")
    @example(b"MAIL FROM:>x<")
    @example(b"MAIL FROM:<a> \xff=\xff\r\n")
    def test_nothing_raises_and_all_that_was_in_it_is_there(self, octets: bytes) -> None:
        look_at(octets)

    @given(PIECES, st.integers(0, 40))
    def test_where_the_buffer_begins_makes_no_difference(self, octets: bytes, before: int) -> None:
        inside = memoryview(bytearray(b"2" * before + octets))[before:]
        self.assertEqual(SmtpView(inside).fields(), SmtpView(octets).fields())


class BesideTheServer(SynchronousTestCase):
    @given(
        st.sampled_from(["MAIL FROM:", "mail from: ", "MAIL\tFROM:", "MAIL  FROM:"]),
        st.sampled_from(["<>", "<a@b>", "<@r:a@b>", "a@b", '<"a b>"@c>', '<"\\\\"@c>', "<é@b>", "<a@[192.0.2.1]>", "<a@b", "<<a@b>>", "<a@b>>"]),
        st.lists(st.sampled_from([" SIZE=1", " SMTPUTF8", "\tBODY=7BIT", "SIZE=1", " X=Y", " ", "  "]), max_size=3).map("".join),
    )
    def test_what_the_server_takes_is_read_as_the_server_reads_it(self, verb: str, path: str, parameters: str) -> None:
        line = (verb + path + parameters).encode()
        text = command_text(line)
        if text is None:
            return  # refused
        heard = parse_mail(text.partition(" ")[2].strip(" "), EVERYTHING, takes_auth=True)
        view = SmtpView(line + b"\r\n")
        if isinstance(heard, Mail):
            said = view.reverse_path or ""
            route = SOURCE_ROUTE.match(said)
            address = said[route.end() :] if route else said
            self.assertEqual(None if not address else Address.parse(address, True), heard.sender)
            self.assertEqual(dict(view.parameters).get("SIZE"), None if heard.parameters.size is None else "1")
            self.assertEqual("SMTPUTF8" in dict(view.parameters), heard.parameters.smtputf8)


class Buffers(SynchronousTestCase):
    def test_a_field_is_a_slice_of_the_buffer(self) -> None:
        buffer = bytearray(b"MAIL FROM:<ann@example.org>\r\n")
        view = SmtpView(buffer)
        path = view.octets("reverse_path")
        assert path is not None
        self.assertIs(path.obj, buffer)
        buffer[11:14] = b"bob"
        self.assertEqual((path.tobytes(), view.reverse_path), (b"bob@example.org", "bob@example.org"))

    def test_a_large_buffer_is_not_copied(self) -> None:
        buffer = b"RCPT TO:<a@b>\r\n" + bytes(8 << 20)
        tracemalloc.start()
        try:
            view = SmtpView(buffer)
            self.assertEqual(view.forward_path, "a@b")
            self.assertEqual(len(view.rest), 8 << 20)
            view.fields(), view.show(), view.summary()
            self.assertLess(tracemalloc.get_traced_memory()[1], 1 << 20)
        finally:
            tracemalloc.stop()

    def test_a_mapped_file_and_one_with_gaps_are_buffers_too(self) -> None:
        with tempfile.TemporaryFile() as file:
            file.write(b"250 OK\r\n")
            file.flush()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                view = SmtpView(mapped)
                self.assertEqual(view.reply_text, "OK")
                del view
        self.assertEqual(SmtpView(memoryview(b"2x5x0x x")[::2]).reply_code, 250)
