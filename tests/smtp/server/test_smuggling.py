"""What looks like the end of data and is none (the attacks of December 2023, CVE-2023-51764 to 51766, and their kin).

The peer has hidden a second transaction behind such an end.  It must stay content.
"""

from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.events import Data, Event, Mail
from mailserver.smtp.server.session import SessionLimits
from tests.smtp.server.conversation import Conversation

FALSE_ENDS = (
    b"\n.\n",
    b"\n.\r\n",
    b"\n.\r",
    b"\r.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r\r\n.\r\r\n",
    b"\r\n.\r\r\n",
    b"\r\r.\r\r",
    b"\n\n.\n\n",
    b"\n\r.\n\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n\0.\n",
    b"\r\0\n.\r\n",
    b"\n.\0\n",
    b"\0\n.\n\0",
    b"\r\n.\r\0\n",
)
LEGAL_LINES = (b"\r\n..\r\n", b"\r\n. \r\n", b"\r\n .\r\n", b"\r\n\t.\r\n", b"\r\n.\t\r\n", b"\r\n\xa0.\r\n", b"\r\n\xff.\r\n")
HIDDEN = b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nforged\r\n"
REFUSING = SessionLimits(stray_line_ends="refuse")


def senders(events: list[Event]) -> list[str]:
    return [str(event.sender) for event in events if isinstance(event, Mail)]


class SmugglingTests(SynchronousTestCase):
    def dialogue(self, false_end: bytes, step: int, **kinds: object) -> Conversation:
        wire = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@example.org>\r\nDATA\r\n"
        content = b"Subject: x\r\n\r\ntext" + false_end + HIDDEN + b".\r\nNOOP\r\n"
        conversation = Conversation(**kinds).say_hello()  # type: ignore[arg-type]
        conversation.send(wire, *[content[n : n + step] for n in range(0, len(content), step)])
        return conversation

    def test_no_false_end_ends_the_data_however_it_arrives(self):
        for false_end in FALSE_ENDS:
            for step in (1, 2, 3, 5, 1000):
                for lf_lines in (False, True):
                    conversation = self.dialogue(false_end, step, lf_lines=lf_lines)
                    self.assertEqual(senders(conversation.events), ["a@b.example"], (false_end, step))
                    self.assertEqual(conversation.codes, [250, 250, 354, 250, 250], (false_end, step))
                    self.assertIn(b"MAIL FROM:<evil@b.example>", conversation.content)

    def test_where_they_are_refused_none_ends_the_data_either(self):
        for false_end in FALSE_ENDS:
            for step in (1, 2, 3, 5, 1000):
                conversation = self.dialogue(false_end, step, limits=REFUSING)
                self.assertEqual(senders(conversation.events), ["a@b.example"], (false_end, step))
                self.assertEqual(conversation.codes, [250, 250, 354, 550, 250], (false_end, step))

    def test_none_ends_the_data_at_its_very_beginning(self):
        beginnings = {false_end.lstrip(b"\r\n") for false_end in FALSE_ENDS} - {b".\r\n"}  # that one is the end of an empty message
        self.assertGreater(len(beginnings), 5)
        for beginning in beginnings:
            for limits, code in ((SessionLimits(), 250), (REFUSING, 550)):
                conversation = Conversation(limits=limits).address()
                conversation.send(b"DATA\r\n", beginning + HIDDEN + b".\r\n")
                self.assertEqual(senders(conversation.events), [], beginning)
                self.assertEqual(conversation.codes, [354, code], beginning)

    def test_a_peer_of_lf_lines_hides_nothing_that_arrives_with_the_false_end(self):
        for false_end in FALSE_ENDS:
            conversation = Conversation(lf_lines=True)
            for line in (b"EHLO a\n", b"MAIL FROM:<a@b.example>\n", b"RCPT TO:<c@example.org>\n", b"DATA\n"):
                conversation.send(line)
            for hidden in (HIDDEN, HIDDEN.replace(b"\r\n", b"\n")):
                conversation.send(b"Subject: x\n\ntext" + false_end + hidden)
            conversation.send(b"\r\n.\r\n")
            conversation.send(b"NOOP\n")
            self.assertEqual(senders(conversation.events), ["a@b.example"], false_end)
            self.assertEqual(conversation.codes, [250, 250, 250, 354, 250, 250], false_end)

    def test_the_same_in_bdat_is_counted(self):
        for false_end in FALSE_ENDS:
            content = b"Subject: x\r\n\r\ntext" + false_end + HIDDEN
            for limits, code in ((SessionLimits(), 250), (REFUSING, 550)):
                for lf_lines in (False, True):
                    conversation = Conversation(limits=limits, lf_lines=lf_lines).address()
                    conversation.send(b"BDAT %d LAST\r\n" % len(content) + content + b"NOOP\r\n")
                    self.assertEqual(senders(conversation.events), [], false_end)
                    self.assertEqual(conversation.codes, [250 if lf_lines else code, 250], false_end)

    def test_lines_that_are_not_a_lone_dot_are_content(self):
        for line in LEGAL_LINES:
            conversation = self.dialogue(line, 1000)
            self.assertEqual(senders(conversation.events), ["a@b.example"], line)
            self.assertEqual(conversation.codes, [250, 250, 354, 250, 250], line)

    def test_the_true_end_is_one(self):
        # So the tests above could fail: with CRLF.CRLF the second transaction is executed.
        conversation = self.dialogue(b"\r\n.\r\n", 1000)
        self.assertEqual(senders(conversation.events), ["a@b.example", "evil@b.example"])
        self.assertEqual(sum(isinstance(event, Data) for event in conversation.events), 2)
