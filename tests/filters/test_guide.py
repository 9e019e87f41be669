"""docs/plugins/filter.md says what is so: its code is the shipped code or runs here, its tests pass, its TOML loads."""

from __future__ import annotations

import re
import tomllib
import unittest
from typing import Any

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver import interfaces
from mailserver.config import Options, parse
from mailserver.filters.denylist import DenylistOptions
from mailserver.mail.answers import Defer, Disconnect, Pass, Refuse, Verdict
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.plugins.catalogue import FILTERS, discover
from mailserver.receive.judging import Judging
from mailserver.testing import FilterCase, MailCase
from tests.documents import DOCS, blocks, page_text

GUIDE = page_text("plugins/filter.md")
SHIPPED = (DOCS.parent / "mailserver" / "filters" / "denylist.py").read_text()
FRAME = 'hostname = "mail.example.org"\ndata = "data"\n[[listen]]\nservice = "mx"\nendpoint = "tcp:0"\n'


def run_guide() -> dict[str, Any]:
    """Run the guide's own code, block after block, as a reader would type it."""
    names: dict[str, Any] = {"__name__": "guide"}
    for block in blocks(GUIDE, "python"):
        if block not in SHIPPED:
            exec(compile(block, "<the guide>", "exec", dont_inherit=True), names)
    return names


class Guide(SynchronousTestCase):
    def test_it_shows_the_shipped_filter_as_it_is(self) -> None:
        shown = [block for block in blocks(GUIDE, "python") if block in SHIPPED]
        self.assertEqual(len(shown), 4, "a piece of denylist.py has changed: show it anew")

    def test_the_tests_that_it_shows_pass(self) -> None:
        cases = [
            thing
            for thing in run_guide().values()
            if isinstance(thing, type) and issubclass(thing, FilterCase) and thing is not FilterCase
        ]
        self.assertEqual(len(cases), 7)
        result = unittest.TestResult()
        for case in cases:
            unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
        self.assertGreaterEqual(result.testsRun, 9)
        self.assertEqual([(str(test), trace) for test, trace in result.errors + result.failures], [])

    def test_its_configuration_loads(self) -> None:
        configuration = parse(FRAME + blocks(GUIDE, "toml")[0], file="guide", directory="/", options_of=discover().options_of)
        (denylist,) = configuration.filter
        self.assertIsInstance(denylist.options, DenylistOptions)
        self.assertEqual((denylist.services, denylist.on_error, denylist.deadline), (("mx",), "defer", 5.0))

    def test_its_entry_point_is_in_the_group_that_is_searched(self) -> None:
        self.assertIn("mailserver.plugins", tomllib.loads(blocks(GUIDE, "toml")[2])["project"]["entry-points"])

    def test_its_tables_name_every_interface_with_its_method_and_every_verdict(self) -> None:
        for interface in FILTERS:
            if interface.__module__ == "mailserver.interfaces.filters" and interface is not interfaces.IObserver:
                (method,) = interface.names()
                self.assertIn(f"| `{interface.__name__}` | `{method}(", GUIDE)
        for verdict in Verdict.__args__:
            self.assertIn(f"| `{verdict.__name__}(", GUIDE)

    def test_its_tables_name_every_attribute_of_what_a_filter_is_shown(self) -> None:
        for shown in (Peer, Envelope, Recipient):
            table = GUIDE.split(f"| `{shown.__name__}` | |")[1].split("\n\n")[0]
            rows = " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
            public = {name for name in dir(shown) if not name.startswith("_")}
            self.assertEqual(set(re.findall(r"`(\w+)", rows)), public, shown.__name__)

    def test_it_names_every_method_of_what_configured_returns(self) -> None:
        said = GUIDE.split("What it\nreturns has")[1].split("each returns")[0]
        for name in re.findall(r"`(\w+)\(", said):
            self.assertTrue(callable(getattr(Judging, name)), name)


@implementer(interfaces.IPeerFilter, interfaces.ISenderFilter, interfaces.IRecipientFilter, interfaces.IContentFilter)
class Says:
    """One verdict at one stage."""

    def __init__(self, stage: str, verdict: Any) -> None:
        self.stage, self.verdict = stage, verdict

    def at(self, stage: str) -> Any:
        return succeed(self.verdict if stage == self.stage else Pass())

    def judge_peer(self, peer: Peer) -> Any:
        return self.at("EHLO" if peer.hello else "connect")

    def judge_sender(self, envelope: Envelope) -> Any:
        return self.at("MAIL")

    def judge_recipient(self, envelope: Envelope, recipient: Recipient) -> Any:
        return self.at("RCPT")

    def judge_content(self, envelope: Envelope, content: Any) -> Any:
        return self.at("data")


@implementer(interfaces.IComponentFactory)
class SaysFactory:
    name = "says"
    summary = "Says one thing."
    api_version = "1.0"
    provides = (interfaces.IPeerFilter, interfaces.ISenderFilter, interfaces.IRecipientFilter, interfaces.IContentFilter)
    options = Options
    said: Any = None

    def build(self, options: Any, services: Any) -> Says:
        return Says(*self.said)


class InAServer(MailCase):
    def test_each_verdict_is_heard_with_the_code_of_the_table(self) -> None:
        table = GUIDE.split("What the peer hears:")[1].split("\n\n")[1]
        rows = {cells[1].strip(): cells[2:5] for cells in (line.split("|") for line in table.splitlines()[2:])}
        stages = {"connect": "connect", "EHLO, HELO, LHLO": "EHLO", "MAIL": "MAIL", "RCPT, after the data": "RCPT"}
        self.assertEqual(set(rows), set(stages))
        for row, stage in [*stages.items(), ("RCPT, after the data", "data")]:
            for verdict, cell in zip((Refuse("no"), Defer("later"), Disconnect("enough")), rows[row], strict=True):
                if not cell.strip()[0].isdigit():
                    continue
                factory = SaysFactory()
                factory.said = stage, verdict
                self.serve('[[filter]]\nuse = "says"\n', factory)
                sent = self.send()
                heard = [sent.mail, *sent.recipients.values(), *sent.data]
                code = next(one.code for one in heard if one.code >= 400)
                self.assertEqual(code, int(cell.strip()[:3]), (stage, verdict))

    def test_the_whole_file_is_a_server(self) -> None:
        text = blocks(GUIDE, "toml")[1].replace("/var/lib/mailserver", "data")
        parse(text, file="guide", directory="/", options_of=discover().options_of)
        self.serve(text)
        self.assertEqual(self.send(sender="a@spam.example").code, 550)
        self.assertEqual(self.send().code, 250)
        self.assertEqual(len(self.mailbox("alice@example.org")), 1)
