"""``mailserver tlsrpt``: what the server answers, for people and programs; what `check` says of reports."""

from __future__ import annotations

from typing import Any

from mailserver.cli import report_filters
from mailserver.control.client import CommandRefused
from tests.cli.support import CONFIGURATION, CommandCase

REPORTS = CONFIGURATION + '[[filter]]\nuse = "tls_reports"\n'
WHOLE = (
    CONFIGURATION
    + '[relay]\nuse = "mx"\n'
    + "".join([f'[[filter]]\nuse = "{one}"\n' for one in ("spf", "dkim", "dmarc", "dkim_signing", "tls_reports")])
)


class Shown(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(REPORTS)
        self.asked: list[Any] = []
        self.given: Any = []

        def ask_server(data: str, command: str, arguments: Any, seconds: float) -> Any:
            self.asked.append((arguments["name"], arguments["command"], arguments["arguments"]))
            if isinstance(self.given, Exception):
                raise self.given
            return {"answer": self.given}

        self.patch(report_filters, "ask_server", ask_server)

    def done(self, *words: str, code: int = 0) -> str:
        said = self.command("tlsrpt", *words)
        self.assertEqual((said.code, said.err), (code, ""), said)
        self.assertTrue(all(line.isprintable() for line in said.out.splitlines()), said.out)
        return said.out

    def test_policies_and_failures_of_a_domain(self) -> None:
        self.given = {
            "domain": "example.org", "reports": 2, "successes": 120, "failures": 3, "kinds": 2,
            "policies": [{"policy": "sts", "domain": "example.org", "successes": 120, "failures": 3}],
            "rows": [{"result": "certificate-expired", "host": "mx.example.org\x1b[2J", "sessions": 3, "addresses": [],
                      "reporters": ["a.example", "b.example", "c.example", "d.example"], "information": ["since\nyesterday"]}],
        }  # fmt: skip
        said = self.done("show", "example.org", "--since", "7d")
        self.assertEqual(self.asked, [("tls_reports", "show", {"domain": "example.org", "since": 604_800.0})])
        self.assertRegex(said, r"sts +example\.org +123 +3")
        self.assertRegex(said, r"certificate-expired +mx\.example\.org\S+ +3 +a\.example, b\.example, c\.example and 1 more")
        self.assertIn("123 sessions, of which 3 failed; 2 reports.", said)
        self.assertIn("Only the first 1", said)
        self.given = {**self.given, "reports": 0}
        self.assertEqual(self.done("show", "example.org", code=1), "There are no reports about example.org.\n")

    def test_reports_of_others_and_of_ours(self) -> None:
        self.assertEqual((self.done("list"), self.done("unread"), self.done("reports")), ("There are no reports.\n", "All was read.\n", "There are none.\n"))
        self.given = [{"domain": "example.org", "begin": 0, "end": 86_399, "reporter": "big.example", "organization": "Big\n",
                       "policies": ["sts", "tlsa"], "successes": 5, "failures": 1, "report": "x", "id": "ID", "received": 1.0}]  # fmt: skip
        self.assertRegex(self.done("list", "example.org"), r"example\.org +1970-01-01 +1970-01-01 +big\.example +Big\? +sts, tlsa +6 +1")
        self.given = [{"day": "2026-11-30", "domain": "example.net", "state": "sent", "due": 0.0, "sessions": 3, "report": "x",
                       "to": {"mailto:rua@example.net": "ID", "https://r.example/": "posted: 201"}}]  # fmt: skip
        self.assertIn("mailto:rua@example.net, https://r.example/ (posted: 201)", self.done("reports"))
        self.given = {"day": "2026-11-30", "domain": "example.net", "due": 0.0, "sessions": 3, "report": "x@example.org", "left_out": 2,
                      "to": {"mailto:rua@example.net": "wanted"}, "document": "{\n}"}  # fmt: skip
        said = self.done("preview", "example.net", "--day", "2026-11-30")
        self.assertEqual(self.asked[-1][1:], ("preview", {"domain": "example.net", "day": "2026-11-30"}))
        for words in ("to mailto:rua@example.net: wanted", "2 sessions of the day", "{\n}"):
            self.assertIn(words, said)
        self.given = "1 reports were due"
        self.assertEqual(self.done("send"), "1 reports were due\n")

    def test_for_programs(self) -> None:
        for words in (("list",), ("unread",), ("reports",), ("preview", "example.net")):
            self.assertEqual(self.command("tlsrpt", *words, "--json").json, [])

    def test_what_makes_no_sense_is_said(self) -> None:
        self.given = CommandRefused("no reports are sent: the filter has no `sender`")
        self.assertIn("no `sender`", self.command("tlsrpt", "reports").err)
        self.configure(CONFIGURATION)
        self.assertIn('use = "tls_reports"', self.command("tlsrpt", "list").err)


class Checked(CommandCase):
    def doubts(self, text: str) -> list[str]:
        self.configure(text)
        return [line for line in self.command("check", "--json").json["warnings"] if "tls_reports" in line]

    def test_what_it_lacks_is_told_and_nothing_else(self) -> None:
        self.assertEqual(self.doubts(WHOLE + 'sender = "tls-reports@example.org"\n'), [])
        [missing] = self.doubts(REPORTS)
        self.assertIn('use = "spf" and use = "dkim" and use = "dmarc"', missing)
        told = self.doubts(REPORTS + 'local_part = ""\nsender = "reports@elsewhere.example"\n')
        self.assertEqual([any(words in one for one in told) for words in ("of no domain of ours", "nothing goes to", "not signed")], [True] * 3)
