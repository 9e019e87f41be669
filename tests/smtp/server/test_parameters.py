"""The parameters of MAIL and RCPT, each by its RFC."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.envelope import MailParameters, RecipientParameters
from mailserver.mail.reply import Reply
from mailserver.smtp.server.extensions import Extensions
from mailserver.smtp.server.parameters import mail_parameters, recipient_parameters

OFFERED = Extensions(size=1000)
BARE = Extensions(eightbitmime=False, smtputf8=False, chunking=False, binarymime=False, dsn=False)


def refusal(parsed: object) -> tuple[int, str] | object:
    return (parsed.code, parsed.enhanced) if isinstance(parsed, Reply) else parsed


def mail(text: str, offered: Extensions = OFFERED, takes_auth: bool = True) -> object:
    return refusal(mail_parameters(text, offered, takes_auth=takes_auth))


def rcpt(text: str, offered: Extensions = OFFERED, smtputf8: bool = False) -> object:
    return refusal(recipient_parameters(text, offered, smtputf8=smtputf8))


UNKNOWN = (555, "5.5.4")
MALFORMED = (501, "5.5.4")


class MailParameterTests(SynchronousTestCase):
    def test_all_at_once_in_any_case_and_order(self):
        self.assertEqual(
            mail(" smtputf8 Body=8bitmime size=77 RET=hdrs ENVID=QQ314159 AUTH=<>"),
            MailParameters(size=77, body="8BITMIME", smtputf8=True, ret="HDRS", envid="QQ314159", auth="<>"),
        )

    def test_an_unknown_keyword_is_555(self):
        for text in (" FOO", " FOO=1", " MT-PRIORITY=3", " =", " NOTIFY=NEVER", " ſize=5"):
            self.assertEqual(mail(text), UNKNOWN, text)

    def test_a_keyword_that_is_not_offered_is_555(self):
        for text in (" SIZE=1", " BODY=7BIT", " SMTPUTF8", " RET=FULL", " ENVID=1"):
            self.assertEqual(mail(text, BARE), UNKNOWN, text)
        self.assertEqual(mail(" AUTH=a@b.example", takes_auth=False), UNKNOWN)
        self.assertEqual(mail(" BODY=BINARYMIME", Extensions(binarymime=False)), UNKNOWN)

    def test_a_keyword_given_twice_is_501(self):
        for text in (" SIZE=1 SIZE=1", " SIZE=1 size=2", " SMTPUTF8 SMTPUTF8", " RET=FULL RET=FULL"):
            self.assertEqual(mail(text), MALFORMED, text)

    def test_size_takes_twenty_ascii_digits_and_nothing_else(self):
        # RFC 1870 section 4: size-value ::= 1*20DIGIT
        self.assertEqual(mail(" SIZE=" + "9" * 20), MailParameters(size=10**20 - 1))
        for value in ("", "abc", "-1", "+5", "1_0", "0x10", "1.5", "5x", "9" * 21, "9" * 1000, "\uff11\uff12", "\u0661"):
            self.assertEqual(mail(f" SIZE={value}"), MALFORMED, value)

    def test_a_keyword_without_its_value_is_501(self):
        for text in (" SIZE", " SIZE=", " SIZE =5", " BODY", " BODY=", " RET=", " ENVID=", " AUTH=", " SMTPUTF8=1"):
            self.assertEqual(mail(text), MALFORMED, text)

    def test_body_values(self):
        for value in ("7BIT", "8BITMIME", "BINARYMIME"):
            self.assertEqual(mail(f" BODY={value.lower()}"), MailParameters(body=value))
        for value in ("8BIT", "BINARY", "8B\u0131TMIME"):
            self.assertEqual(mail(f" BODY={value}"), MALFORMED, value)

    def test_ret_is_full_or_hdrs(self):
        self.assertEqual(mail(" RET=full"), MailParameters(ret="FULL"))
        self.assertEqual(mail(" RET=BODY"), MALFORMED)

    def test_envid_is_decoded_from_xtext(self):
        # RFC 3461 section 4
        self.assertEqual(mail(" ENVID=a+2Bb+3Dc+20d"), MailParameters(envid="a+b=c d"))
        for value in ("a+2b", "a+", "a+2", "a=b", "+GG", "é"):
            self.assertEqual(mail(f" ENVID={value}"), MALFORMED, value)

    def test_xtext_cannot_smuggle_line_ends_controls_or_8_bit(self):
        for value in ("a+0D+0Ab", "+00", "+7F", "+E9", "+1B"):
            self.assertEqual(mail(f" ENVID={value}"), MALFORMED, value)

    def test_envid_has_at_most_a_hundred_characters(self):
        # RFC 3461 section 4.4
        self.assertEqual(mail(" ENVID=" + "x" * 100), MailParameters(envid="x" * 100))
        self.assertEqual(mail(" ENVID=" + "x" * 101), MALFORMED)

    def test_auth_is_a_mailbox_in_xtext(self):
        # RFC 4954 section 5
        self.assertEqual(mail(" AUTH=e+2Bf@example.com"), MailParameters(auth="e+f@example.com"))
        self.assertEqual(mail(" AUTH=nobody"), MALFORMED)

    @given(st.text(max_size=60))
    def test_any_text_has_an_answer(self, text):
        self.assertIsInstance(mail_parameters(" " + text, OFFERED, takes_auth=True), MailParameters | Reply)
        self.assertIsInstance(recipient_parameters(" " + text, OFFERED, smtputf8=True), RecipientParameters | Reply)
        self.assertIsInstance(recipient_parameters(" ORCPT=utf-8;" + text, OFFERED, smtputf8=True), RecipientParameters | Reply)


class RecipientParameterTests(SynchronousTestCase):
    def test_notify_never_stands_alone(self):
        # RFC 3461 section 4.1
        self.assertEqual(rcpt(" NOTIFY=never"), RecipientParameters(notify=frozenset({"NEVER"})))
        for value in ("NEVER,DELAY", "FAILURE,NEVER", "NEVER,NEVER"):
            self.assertEqual(rcpt(f" NOTIFY={value}"), MALFORMED, value)

    def test_notify_is_a_list_of_success_failure_and_delay(self):
        self.assertEqual(
            rcpt(" NOTIFY=SUCCESS,failure,Delay"), RecipientParameters(notify=frozenset({"SUCCESS", "FAILURE", "DELAY"}))
        )
        for value in ("", ",", "SUCCESS,", "SUCCESS,SUCCESS", "SUCCESS;DELAY", "ALWAYS"):
            self.assertEqual(rcpt(f" NOTIFY={value}"), MALFORMED, value)

    def test_orcpt_has_a_type_and_xtext(self):
        # RFC 3461 section 4.2
        self.assertEqual(rcpt(" ORCPT=rfc822;Bob+2BX@ex.com"), RecipientParameters(orcpt=("rfc822", "Bob+X@ex.com")))
        for value in ("", "rfc822", "rfc822;", ";a@b", "rf c;x", "rfc822;a+0Ab", "rfc822;a=b", "rfc822;é", "rfc822;" + "x" * 500):
            self.assertIn(rcpt(f" ORCPT={value}"), (MALFORMED, UNKNOWN), value)

    def test_orcpt_of_type_utf_8_embeds_characters(self):
        # RFC 6533 section 3: utf-8-addr-xtext
        self.assertEqual(rcpt(r" ORCPT=utf-8;j\x{F6}rg@ex.com"), RecipientParameters(orcpt=("utf-8", "jörg@ex.com")))
        self.assertEqual(rcpt(r" ORCPT=utf-8;\x{1F600}@ex.com"), RecipientParameters(orcpt=("utf-8", "\U0001f600@ex.com")))
        self.assertEqual(rcpt(r" ORCPT=UTF-8;a\x{2B}b\x{5C}@ex.com"), RecipientParameters(orcpt=("UTF-8", "a+b\\@ex.com")))
        for value in (r"\x{D800}", r"\x{110000}", r"\x{0A}", r"\x{0D}", r"\x{85}", r"\x{2028}", r"\x{f6}", r"\x{}", "a\\b", "a+b", "a=b"):
            self.assertEqual(rcpt(f" ORCPT=utf-8;{value}"), MALFORMED, value)

    def test_raw_utf_8_in_orcpt_needs_smtputf8(self):
        # RFC 6533 section 3: utf-8-addr-unitext
        self.assertEqual(rcpt(" ORCPT=utf-8;jörg@ex.com", smtputf8=True), RecipientParameters(orcpt=("utf-8", "jörg@ex.com")))
        self.assertEqual(rcpt(" ORCPT=utf-8;jörg@ex.com"), MALFORMED)

    def test_unknown_and_not_offered(self):
        for text in (" FOO", " SIZE=1", " SMTPUTF8"):
            self.assertEqual(rcpt(text), UNKNOWN, text)
        self.assertEqual(rcpt(" NOTIFY=NEVER", BARE), UNKNOWN)
        self.assertEqual(rcpt(" ORCPT=rfc822;a@b", BARE), UNKNOWN)

    def test_twice_is_501(self):
        self.assertEqual(rcpt(" NOTIFY=DELAY NOTIFY=DELAY"), MALFORMED)
