"""MAIL and RCPT: paths (RFC 5321 sections 4.1.1.2, 4.1.1.3, 4.1.2)."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.envelope import MailParameters
from mailserver.mail.reply import Reply
from mailserver.smtp.events import Mail, Rcpt
from mailserver.smtp.server.commands import parse_mail, parse_rcpt
from mailserver.smtp.server.extensions import Extensions

OFFERED = Extensions(size=1000)


def sender(argument: str) -> Address | None:
    mail = parse_mail(argument, OFFERED, takes_auth=False)
    if isinstance(mail, Reply):
        raise AssertionError(f"{argument} was refused: {mail}")
    return mail.sender


def recipient(argument: str, smtputf8: bool = False) -> Address:
    rcpt = parse_rcpt(argument, OFFERED, smtputf8=smtputf8)
    if isinstance(rcpt, Reply):
        raise AssertionError(f"{argument} was refused: {rcpt}")
    return rcpt.address


def mail_refusal(argument: str) -> tuple[int, str]:
    mail = parse_mail(argument, OFFERED, takes_auth=False)
    if isinstance(mail, Mail):
        raise AssertionError(f"{argument!r} was taken: {mail}")
    return mail.code, mail.enhanced


def rcpt_refusal(argument: str, smtputf8: bool = False) -> tuple[int, str]:
    rcpt = parse_rcpt(argument, OFFERED, smtputf8=smtputf8)
    if isinstance(rcpt, Rcpt):
        raise AssertionError(f"{argument!r} was taken: {rcpt}")
    return rcpt.code, rcpt.enhanced


class MailTests(SynchronousTestCase):
    def test_a_plain_path(self):
        self.assertEqual(sender("FROM:<a.b+c@x.example>"), Address("a.b+c", "x.example"))

    def test_the_null_reverse_path(self):
        self.assertIsNone(sender("FROM:<>"))
        self.assertIsNone(sender("from:<> SIZE=5"))

    def test_the_words_ignore_case_and_the_address_keeps_it(self):
        self.assertEqual(sender("fRoM:<Jo.Ann@Example.ORG>"), Address("Jo.Ann", "Example.ORG"))

    def test_a_space_after_the_colon_is_tolerated(self):
        self.assertEqual(sender("FROM: <a@b.example>"), Address("a", "b.example"))
        self.assertIsNone(sender("FROM: <>"))

    def test_blanks_around_the_path_are_tolerated(self):
        for argument in ("FROM:  <a@b.example>", "FROM: < a@b.example >", "FROM:    a@b.example"):
            self.assertEqual(sender(argument), Address("a", "b.example"), argument)

    def test_a_path_may_lack_its_angle_brackets(self):
        for argument in ("FROM:a@b.example", "FROM: a@b.example", "FROM:a@b.example SIZE=1"):
            self.assertEqual(sender(argument), Address("a", "b.example"), argument)
        self.assertEqual(sender('FROM:"a b>"@c.example SIZE=1'), Address("a b>", "c.example"))
        self.assertEqual(parse_mail("FROM:a@b.example SIZE=12", OFFERED, takes_auth=False).parameters.size, 12)

    def test_but_not_one_of_them_nor_itself(self):
        for argument in ("FROM:<a@b.example", "FROM:a@b.example>", "FROM:", "FROM:  ", ""):
            self.assertEqual(mail_refusal(argument), (501, "5.5.4"), argument)
        self.assertEqual(mail_refusal("FROM:John <a@b.example>"), (555, "5.5.4"))

    def test_a_parameter_may_stand_right_behind_the_path(self):
        mail = parse_mail("FROM:<>SIZE=12 BODY=8BITMIME", OFFERED, takes_auth=False)
        self.assertEqual(mail, Mail(None, MailParameters(size=12, body="8BITMIME")))
        self.assertEqual(sender("FROM:<a@b.example>SIZE=1"), Address("a", "b.example"))
        self.assertEqual(mail_refusal("FROM:<a@b.example>SIZE=x"), (501, "5.5.4"))

    def test_something_else_between_path_and_parameters_is_refused(self):
        for argument in ("FROM:<a@b.example>x", "FROM:<a@b.example>x SIZE=1", "FROM:<a@b.example><c@d.example>", "FROM :<a@b.example>"):
            self.assertEqual(mail_refusal(argument), (501, "5.5.4"), argument)

    def test_odd_dots_are_taken_as_they_came(self):
        for local in ("a..b", ".a", "a.", ".."):
            self.assertEqual(sender(f"FROM:<{local}@b.example> SIZE=1").path, f"{local}@b.example")
            self.assertEqual(recipient(f"TO:<{local}@b.example>").path, f"{local}@b.example")
            self.assertEqual(recipient(f'TO:<"{local}"@b.example>').path, f'"{local}"@b.example')

    def test_auth_that_claims_nothing_is_taken_from_anybody(self):
        # RFC 4954 section 5; some send it whatever was offered
        self.assertEqual(parse_mail("FROM:<a@b.example> AUTH=<>", OFFERED, takes_auth=False).parameters.auth, "<>")
        self.assertEqual(mail_refusal("FROM:<a@b.example> AUTH=c@d.example"), (555, "5.5.4"))
        self.assertEqual(mail_refusal("FROM:<a@b.example> AUTH=<> AUTH=<>"), (501, "5.5.4"))
        self.assertEqual(rcpt_refusal("TO:<a@b.example> AUTH=<>"), (555, "5.5.4"))

    def test_a_source_route_is_dropped(self):
        # RFC 5321 section 4.1.1.3 and appendix C
        self.assertEqual(sender("FROM:<@one.example,@two.example:joe@three.example>"), Address("joe", "three.example"))
        self.assertEqual(sender("FROM:<@one.example:joe@three.example>"), Address("joe", "three.example"))

    def test_a_quoted_local_part_may_hold_brackets_and_spaces(self):
        self.assertEqual(sender('FROM:<"a b>c\\"@"@x.example>'), Address('a b>c"@', "x.example"))

    def test_an_address_literal(self):
        self.assertEqual(sender("FROM:<a@[192.0.2.1]>"), Address("a", "[192.0.2.1]"))
        self.assertEqual(sender("FROM:<a@[IPv6:2001:db8::1]>"), Address("a", "[IPv6:2001:db8::1]"))

    def test_an_address_that_is_none_is_5_1_7(self):
        for path in ("a", "@b.example", "a@", "a@b..example", "a@-b.example", "a b@c.example", "a@b@c.example", "@a:"):
            self.assertEqual(mail_refusal(f"FROM:<{path}>"), (501, "5.1.7"), path)

    def test_lengths_are_bounded(self):
        # RFC 5321 sections 4.5.3.1.1 and 4.5.3.1.3
        self.assertEqual(sender(f"FROM:<{'a' * 64}@b.example>"), Address("a" * 64, "b.example"))
        self.assertEqual(mail_refusal(f"FROM:<{'a' * 65}@b.example>"), (501, "5.1.7"))
        domain = ".".join(["d" * 60] * 3)  # 182 octets
        self.assertEqual(sender(f"FROM:<{'a' * 64}@{domain}.{'e' * 6}>"), Address("a" * 64, f"{domain}.{'e' * 6}"))
        self.assertEqual(mail_refusal(f"FROM:<{'a' * 64}@{domain}.{'e' * 7}>"), (501, "5.1.7"))

    def test_a_non_ascii_sender_without_smtputf8_is_553_5_6_7(self):
        # RFC 6531 section 3.5
        self.assertEqual(mail_refusal("FROM:<jörg@b.example>"), (553, "5.6.7"))
        self.assertEqual(mail_refusal("FROM:<a@bücher.example>"), (553, "5.6.7"))

    def test_a_non_ascii_sender_with_smtputf8(self):
        self.assertEqual(sender("FROM:<jörg@bücher.example> SMTPUTF8"), Address("jörg", "bücher.example"))

    def test_what_the_quick_pattern_takes_the_careful_one_takes_alike(self):
        quick = parse_mail("FROM:<a@b.example> SIZE=12 BODY=8bitmime", OFFERED, takes_auth=False)
        careful = parse_mail("FROM: <a@b.example>  SIZE=12  BODY=8bitmime", OFFERED, takes_auth=False)
        self.assertEqual(quick, careful)
        self.assertEqual(quick, Mail(Address("a", "b.example"), MailParameters(size=12, body="8BITMIME")))

    @given(st.text(alphabet='abc@<>.:," \\[]é ſSIZE=', max_size=40))
    def test_any_argument_has_an_answer(self, text):
        self.assertIsInstance(parse_mail(text, OFFERED, takes_auth=True), Mail | Reply)
        self.assertIsInstance(parse_mail(f"FROM:<{text}>", OFFERED, takes_auth=True), Mail | Reply)
        self.assertIsInstance(parse_rcpt(f"TO:<{text}>", OFFERED, smtputf8=True), Rcpt | Reply)


class RcptTests(SynchronousTestCase):
    def test_a_plain_path(self):
        self.assertEqual(recipient("TO:<a@b.example>"), Address("a", "b.example"))
        for argument in ("to: <a@b.example>", "TO:   <a@b.example>", "TO:a@b.example", "TO: a@b.example", "TO:a@b.example NOTIFY=NEVER"):
            self.assertEqual(recipient(argument), Address("a", "b.example"), argument)

    def test_the_null_path_is_refused(self):
        self.assertEqual(rcpt_refusal("TO:<>"), (501, "5.1.3"))

    def test_postmaster_without_a_domain_in_any_case(self):
        # RFC 5321 section 4.5.1
        for name in ("postmaster", "Postmaster", "POSTMASTER"):
            self.assertEqual(recipient(f"TO:<{name}>"), Address(name, ""))
            self.assertEqual(recipient(f"TO:{name}"), Address(name, ""))

    def test_no_other_name_without_a_domain(self):
        for name in ("root", "postmaster2", "poſtmaster"):
            self.assertEqual(rcpt_refusal(f"TO:<{name}>", smtputf8=True), (501, "5.1.3"), name)

    def test_a_source_route_is_dropped(self):
        self.assertEqual(recipient("TO:<@a.example,@b.example:c@d.example>"), Address("c", "d.example"))

    def test_a_percent_hack_stays_a_local_part(self):
        self.assertEqual(recipient("TO:<joe%far.example@b.example>"), Address("joe%far.example", "b.example"))

    def test_what_is_no_path_is_refused(self):
        for argument in ("TO:", "TO: ", "TO:<a@b.example", "", "<a@b.example>", "FROM:<a@b.example>"):
            self.assertEqual(rcpt_refusal(argument), (501, "5.5.4"), argument)

    def test_a_non_ascii_recipient_needs_smtputf8_at_mail(self):
        self.assertEqual(rcpt_refusal("TO:<jörg@b.example>"), (553, "5.6.7"))
        self.assertEqual(recipient("TO:<jörg@b.example>", smtputf8=True), Address("jörg", "b.example"))
