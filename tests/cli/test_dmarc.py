"""``mailserver dmarc``: what the server answers, for people and programs; what `check` says of reports."""

from __future__ import annotations

from typing import Any

from mailserver.cli import report_filters
from mailserver.control.client import CommandRefused
from tests.cli.support import CONFIGURATION, CommandCase

REPORTS = CONFIGURATION + '[[filter]]\nuse = "dmarc_reports"\n'
WHOLE = (
    CONFIGURATION
    + '[relay]\nuse = "mx"\n'
    + "".join([f'[[filter]]\nuse = "{one}"\n' for one in ("spf", "dkim", "dmarc", "dkim_signing", "dmarc_reports")])
)
SOURCE = {
    "source": "192.0.2.1", "messages": 3, "passed": 1, "failed": 2, "dkim": 1, "spf": 0, "stopped": 2,
    "reporters": ["a.example", "b.example", "c.example", "d.example"], "domains": ["example.org\x1b[2J"],
}  # fmt: skip


class Shown(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(REPORTS)
        self.asked: list[Any] = []
        self.given: Any = []

        def ask_server(data: str, command: str, arguments: Any, seconds: float) -> Any:
            self.asked.append((arguments["command"], arguments["arguments"]))
            if isinstance(self.given, Exception):
                raise self.given
            return {"answer": self.given}

        self.patch(report_filters, "ask_server", ask_server)

    def done(self, *words: str, code: int = 0) -> str:
        said = self.command("dmarc", *words)
        self.assertEqual((said.code, said.err), (code, ""), said)
        self.assertTrue(all(line.isprintable() for line in said.out.splitlines()), said.out)
        return said.out

    def test_sources_of_a_domain(self) -> None:
        self.given = {"domain": "example.org", "reports": 2, "sources": 2, "messages": 4, "passed": 2, "rows": [SOURCE]}
        said = self.done("show", "example.org", "--since", "7d")
        self.assertEqual(self.asked, [("show", {"domain": "example.org", "since": 604_800.0})])
        self.assertRegex(said, r"192\.0\.2\.1 +3 +1 +2 +1 +0 +2 +example\.org\S* +a\.example, b\.example, c\.example and 1 more")
        self.assertIn("4 messages from 2 sources, of which DMARC has passed for 2; 2 reports.", said)
        self.assertIn("Only the first 1", said)
        self.given = {**self.given, "reports": 0}
        self.assertEqual(self.done("show", "example.org", code=1), "There are no reports about example.org.\n")

    def test_reports_of_others_and_what_was_not_read(self) -> None:
        self.assertEqual(self.done("list"), "There are no reports.\n")
        self.assertEqual(self.done("unread"), "All was read.\n")
        report = {"domain": "example.org", "begin": 0, "end": 86_399, "reporter": "big.example", "organization": "Big\n", "policy": "none",
                  "messages": 5, "passed": 4, "report": "x", "id": "ID", "received": 1.0}  # fmt: skip
        self.given = [report]
        self.assertRegex(self.done("list", "example.org"), r"example\.org +1970-01-01 +1970-01-01 +big\.example +Big\? +none +5 +4 +1")
        self.given = [{"at": 0.0, "id": "ID", "sender": "a@b.example", "address": "dmarc-reports@example.org", "why": "it is \x1b no gzip"}]
        self.assertIn("no gzip", self.done("unread"))

    def test_reports_of_ours_and_one_before_it_is_sent(self) -> None:
        self.assertEqual(self.done("reports"), "There are none.\n")
        self.given = [{"day": "2026-11-30", "domain": "example.net", "state": "sent", "due": 0.0, "messages": 3, "report": "x",
                       "to": {"rua@example.net": "ID", "r@third.example": "does not want them"}}]  # fmt: skip
        self.assertIn("rua@example.net, r@third.example (does not want them)", self.done("reports"))
        self.given = [{"day": "2026-11-30", "domain": "example.net", "due": 0.0, "messages": 3, "report": "x@example.org", "left_out": 2,
                       "to": {"rua@example.net": "wanted"}, "document": "<feedback>\n</feedback>"}]  # fmt: skip
        said = self.done("preview", "example.net", "--day", "2026-11-30")
        self.assertEqual(self.asked[-1], ("preview", {"domain": "example.net", "day": "2026-11-30"}))
        for words in ("to rua@example.net: wanted", "2 messages of the day", "<feedback>\n</feedback>"):
            self.assertIn(words, said)
        self.given = "1 reports were due"
        self.assertEqual(self.done("send"), "1 reports were due\n")

    def test_for_programs(self) -> None:
        for words in (("list",), ("unread",), ("reports",), ("preview", "example.net")):
            self.assertEqual(self.command("dmarc", *words, "--json").json, [])
        self.given = "1"
        self.assertEqual(self.command("dmarc", "send", "--json").json, {"done": "1"})

    def test_what_makes_no_sense_is_said(self) -> None:
        for words, code in ((("show",), 2), (("show", "example.org", "--since", "soon"), 2), (("list", "--filter", "other"), 1)):
            said = self.command("dmarc", *words)
            self.assertEqual((said.code, said.out), (code, ""), said)
        self.given = CommandRefused("no reports are sent: the filter has no `sender`")
        said = self.command("dmarc", "reports")
        self.assertEqual((said.code, said.out), (1, ""))
        self.assertIn("no `sender`", said.err)
        self.configure(CONFIGURATION)
        self.assertIn('use = "dmarc_reports"', self.command("dmarc", "list").err)


class Checked(CommandCase):
    def doubts(self, text: str) -> list[str]:
        self.configure(text)
        return [line for line in self.command("check", "--json").json["warnings"] if "dmarc_reports" in line]

    def test_a_filter_that_can_do_all_is_no_doubt(self) -> None:
        self.assertEqual(self.doubts(WHOLE), [])
        self.assertEqual(self.doubts(WHOLE + 'sender = "dmarc-reports@example.org"\n'), [])
        self.assertEqual(self.doubts(WHOLE + 'sender = "dmarc-reports@mail.example.org"\n'), [])

    def test_what_it_lacks_is_told(self) -> None:
        [missing] = self.doubts(REPORTS)
        self.assertIn('use = "spf" and use = "dkim" and use = "dmarc"', missing)
        told = self.doubts(REPORTS + 'sender = "reports@elsewhere.example"\n')
        self.assertEqual([any(words in one for one in told) for words in ("of no domain of ours", "nothing goes to", "not signed")], [True] * 3)

    def test_an_alias_of_that_name_is_told(self) -> None:
        self.accounts.write_text('[account."alice@example.org"]\n')
        alias = '[domain."example.org".aliases]\ndmarc-reports = ["alice@example.org"]\n'
        [told] = self.doubts(CONFIGURATION + alias + '[[filter]]\nuse = "spf"\n[[filter]]\nuse = "dkim"\n[[filter]]\nuse = "dmarc"\n'
                             '[[filter]]\nuse = "dmarc_reports"\n')  # fmt: skip
        self.assertIn("an account or alias has its mail", told)
