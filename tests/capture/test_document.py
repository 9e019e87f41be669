"""docs/capture.md: its examples happen, and it names all that there is."""

from __future__ import annotations

import doctest
import os
import re

from twisted.trial.unittest import SynchronousTestCase

from mailserver import capture
from mailserver.capture import build
from mailserver.mail.reply import Reply
from mailserver.smtp import replies
from tests.documents import DOCS, page_text

PAGE = "capture.md"
# Every name of stackforge's layer::smtp.
THERE = """
    new at_start index is_response is_multiline reply_code reply_text command args mailfrom rcptto raw get_field field_names summary
    smtp_show_fields kind header_len hashret FieldError reply_code_description is_smtp_payload SMTP_FIELD_NAMES SMTP_COMMANDS
    SMTP_MIN_HEADER_LEN SMTP_PORT SMTP_SUBMISSION_PORT SMTPS_PORT
    CMD_EHLO CMD_HELO CMD_MAIL CMD_RCPT CMD_DATA CMD_RSET CMD_VRFY CMD_EXPN CMD_HELP CMD_NOOP CMD_QUIT CMD_AUTH CMD_STARTTLS CMD_BDAT
""".split()
CODES = {
    "SYSTEM_STATUS": 211, "HELP": 214, "SERVICE_READY": 220, "CLOSING": 221, "AUTH_SUCCESS": 235, "OK": 250, "USER_NOT_LOCAL": 251,
    "CANNOT_VRFY": 252, "AUTH_INPUT": 334, "DATA_INPUT": 354, "SERVICE_UNAVAIL": 421, "MAILBOX_UNAVAIL": 450, "LOCAL_ERROR": 451,
    "INSUFF_STORAGE": 452, "TEMP_AUTH_FAIL": 454, "CMD_UNRECOGNIZED": 500, "ARG_SYNTAX_ERROR": 501, "CMD_NOT_IMPL": 502,
    "BAD_CMD_SEQUENCE": 503, "CMD_NOT_IMPL_PARAM": 504, "AUTH_REQUIRED": 530, "AUTH_FAILED": 535, "MAILBOX_UNAVAIL_PERM": 550,
    "USER_NOT_LOCAL_PERM": 551, "EXCEED_STORAGE": 552, "MAILBOX_NAME_INVALID": 553, "TRANSACTION_FAILED": 554,
}  # fmt: skip
BUILDER = """
    new default reply multiline service_ready closing auth_success ok ehlo_response auth_challenge start_mail_input
    service_unavailable mailbox_temp_unavailable auth_required auth_failed mailbox_not_found command ehlo helo mail_from rcpt_to data
    rset vrfy expn help noop quit auth starttls build
""".split()
ROW = re.compile(r"^\| `([^`]+)` \| `([^`]+)` \| (.*) \|$", re.M)


def table() -> dict[str, str]:
    return {there: here for there, here, _ in ROW.findall(page_text(PAGE).partition("come from stackforge")[2])}


def resolved(name: str) -> object:
    first, _, rest = name.partition(".")
    found = {"build": build, "replies": replies}.get(first) or getattr(capture, first)
    for part in rest.split(".") if rest else ():
        found = getattr(found, part)
    return found


class Page(SynchronousTestCase):
    def test_the_examples_are_what_happens(self) -> None:
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(DOCS.parent)  # the page reads a file of docs/examples
        result = doctest.testfile(str(DOCS / PAGE), module_relative=False, encoding="utf-8")
        self.assertEqual(result.failed, 0)
        self.assertGreater(result.attempted, 20)

    def test_the_table_has_each_name_of_the_other_library_and_one_of_ours_that_exists(self) -> None:
        names = {*THERE, *(f"REPLY_{name}" for name in CODES), *(f"SmtpBuilder::{name}" for name in BUILDER)}
        self.assertEqual(set(table()), names)
        for here in table().values():
            self.assertIsNotNone(resolved(here), here)

    def test_codes_verbs_and_ports_of_the_table_have_their_values(self) -> None:
        found = {there: resolved(here) for there, here in table().items()}
        self.assertEqual({name: found[f"REPLY_{name}"] for name in CODES}, CODES)
        self.assertEqual([found[name] for name in ("SMTP_PORT", "SMTP_SUBMISSION_PORT", "SMTPS_PORT")], [25, 587, 465])
        for name in THERE:
            if name.startswith("CMD_"):
                self.assertEqual(found[name], name[4:])
        for there, here in table().items():  # a reply of the catalogue has the code that the other library gives
            if here.startswith("replies.") and isinstance(reply := resolved(here), Reply):
                self.assertEqual(reply.code, {"closing": 221, "auth_success": 235, "service_unavailable": 421, "auth_failed": 535}[there[13:]])

    def test_the_page_names_all_of_ours(self) -> None:
        page = page_text(PAGE)
        ours = [*capture.__all__, *build.__all__, *capture.FIELD_NAMES, *capture.Confidence.__members__]
        ours += [name for name in vars(capture.SmtpView) if not name.startswith("_")]
        self.assertEqual([name for name in ours if re.search(rf"`(?:\w+\.)?{name}\b", page) is None], [])
