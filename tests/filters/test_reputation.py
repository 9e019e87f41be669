"""What came of the mail of networks and domains is counted, fades, and speaks for or against the next."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from zope.interface import implementer

from mailserver.api import (
    Content,
    Envelope,
    Finding,
    IComponentFactory,
    IContentFilter,
    Options,
    Pass,
    Refuse,
    Services,
    Signal,
    TransactionEnd,
    Verdict,
)
from mailserver.filters.reputation import factory
from mailserver.interfaces import CannotDo
from mailserver.state_store.learnt_file import Kind, LearntFile, Lesson
from mailserver.testing import FilterCase, FilterContract, MailCase

DAY = 86_400.0
ACCEPTED, REFUSED, RESET, LOST = TransactionEnd.ACCEPTED, TransactionEnd.REFUSED, TransactionEnd.RESET, TransactionEnd.LOST
SPAM = Finding("rspamd", 9.0, source="rspamd")
VIRUS = Finding("virus", 5.0, "EICAR", source="clamav")


def signed(domain: str, result: str = "pass", **more: Any) -> Finding:
    return Finding("dkim", 0.0, "", {"result": result, "domain": domain, **more}, "dkim")


class ReputationCase(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(1_700_000_000.0)
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.number = 0

    def services_for(self, name: str) -> Services:
        return replace(super().services_for(name), data_directory=self.folder)

    def envelope_of(self, address: str, *findings: Finding, **peer: Any) -> Any:
        self.number += 1
        return replace(self.envelope(peer=self.peer(address, **peer)), findings=findings, id=f"M{self.number}")

    def ended(
        self, component: Any, times: int, address: str, *findings: Finding, how: TransactionEnd = ACCEPTED, **peer: Any
    ) -> str:
        for _ in range(times):
            envelope = self.envelope_of(address, *findings, **peer)
            self.answer(component.ended(envelope, how))
        return str(envelope.id)

    def of_network(self, component: Any, address: str, **peer: Any) -> Finding | None:
        return self.finding(component.judge_sender(self.envelope_of(address, **peer)))

    def of_domains(self, component: Any, *findings: Finding, **peer: Any) -> Finding | None:
        return self.finding(component.judge_content(self.envelope_of("8.8.4.4", *findings, **peer), self.content()))

    def finding(self, asked: Any) -> Finding | None:
        verdict = self.judge(asked)
        self.assertIs(type(verdict), Pass)
        return verdict.findings[0] if verdict.findings else None

    def score(self, found: Finding | None) -> float:
        return 0.0 if found is None else found.score

    def known(self, component: Any, origin: str) -> tuple[float, float]:
        found = self.answer(component.commands()[0].run(origin))
        return found["bad"], found["good"]


class Judging(ReputationCase):
    def test_a_network_whose_mail_was_spam_is_bad_and_one_whose_mail_was_not_is_good(self) -> None:
        component = self.build(factory)
        self.ended(component, 10, "8.8.8.1", SPAM, how=REFUSED)
        self.ended(component, 10, "9.9.9.9")
        bad = self.of_network(component, "8.8.8.200")
        good = self.of_network(component, "9.9.9.1")
        assert bad is not None and good is not None
        self.assertEqual((bad.name, bad.properties["result"], bad.properties["of"]), ("reputation", "bad", "8.8.8.0/24"))
        self.assertEqual((good.properties["result"], good.properties["kind"]), ("good", "network"))
        self.assertGreater(bad.score, 3.0)
        self.assertTrue(-1.0 <= good.score < -0.5)
        self.assertIn("10.0 bad and 0.0 good", bad.evidence)
        self.assertIsNone(self.of_network(component, "8.8.9.1"))

    def test_before_enough_is_known_nothing_is_said(self) -> None:
        component = self.build(factory, minimum=5)
        self.ended(component, 4, "8.8.8.8", SPAM)
        self.assertIsNone(self.of_network(component, "8.8.8.8"))
        self.ended(component, 1, "8.8.8.8", SPAM)
        self.assertIsNotNone(self.of_network(component, "8.8.8.8"))

    def test_what_is_known_fades(self) -> None:
        component = self.build(factory, half_life="7d")
        self.ended(component, 40, "8.8.8.8", SPAM)
        scores = []
        for _ in range(4):
            scores.append(self.score(self.of_network(component, "8.8.8.8")))
            self.clock.advance(7 * DAY)
        self.assertEqual(scores, sorted(scores, reverse=True))
        self.assertGreater(scores[2], 0.0)
        self.assertEqual(scores[3], 0.0)  # 5 are left: too little
        self.clock.advance(70 * DAY)
        self.assertEqual(self.known(component, "8.8.8.8"), (0.0, 0.0))

    def test_who_has_become_good_is_forgiven(self) -> None:
        component = self.build(factory, half_life="7d")
        self.ended(component, 50, "8.8.8.8", SPAM)
        self.assertGreater(self.score(self.of_network(component, "8.8.8.8")), 3.0)
        for _ in range(30):
            self.clock.advance(DAY)
            self.ended(component, 3, "8.8.8.8")
        self.assertLess(self.score(self.of_network(component, "8.8.8.8")), 0.0)

    def test_domains_count_where_a_signature_or_spf_has_passed_for_them(self) -> None:
        component = self.build(factory)
        spf = Finding("spf", 0.0, "", {"result": "pass", "domain": "good.example", "scope": "mfrom"}, "spf")
        for n in range(10):  # from everywhere
            self.ended(component, 1, f"8.8.{n}.1", SPAM, signed("Bad.example"))
            self.ended(component, 1, f"9.9.{n}.1", spf)
        self.assertGreater(self.score(self.of_domains(component, signed("bad.example"))), 3.0)
        self.assertLess(self.score(self.of_domains(component, spf)), 0.0)
        for none in (
            signed("bad.example", "fail"), signed("bad.example", partial=True), signed("bad.example", testing=True),
            Finding("spf", 0.0, "", {"result": "pass", "domain": "bad.example", "scope": "helo"}, "spf"),
            Finding("other", 0.0, "", {"result": "pass", "domain": "bad.example"}), signed("unknown.example"),
        ):  # fmt: skip
            self.assertIsNone(self.of_domains(component, none))
        both = self.of_domains(component, spf, signed("bad.example"))
        assert both is not None
        self.assertEqual(both.properties["of"], "bad.example")  # a good name beside it whitewashes nothing

    def test_a_network_of_ipv6_is_a_64(self) -> None:
        component = self.build(factory)
        self.ended(component, 10, "2a00:1450:4001:80b::1", SPAM)
        self.assertGreater(self.score(self.of_network(component, "2a00:1450:4001:80b:1::2")), 0.0)
        self.assertIsNone(self.of_network(component, "2a00:1450:4001:80c::1"))


class Counting(ReputationCase):
    def test_what_counts_as_bad_and_what_as_good(self) -> None:
        low, middle = Finding("x", 1.9), Finding("x", 3.0)
        for findings, how, known in (
            ((), ACCEPTED, (0.0, 1.0)), ((low,), ACCEPTED, (0.0, 1.0)), ((middle,), ACCEPTED, (0.0, 0.0)),
            ((SPAM,), ACCEPTED, (1.0, 0.0)), ((SPAM,), REFUSED, (1.0, 0.0)), ((middle, middle), REFUSED, (1.0, 0.0)),
            ((VIRUS,), REFUSED, (3.0, 0.0)), ((replace(VIRUS, properties={"noted": True}),), ACCEPTED, (0.0, 0.0)),
            ((), REFUSED, (0.0, 0.0)),  # a full disk, a mistyped sender: not the host's fault
            ((SPAM,), RESET, (0.0, 0.0)), ((SPAM,), LOST, (0.0, 0.0)),
            ((Finding("reputation", 9.0),), ACCEPTED, (0.0, 1.0)),  # what was said here before proves nothing
        ):  # fmt: skip
            component = self.build(factory)
            self.ended(component, 1, "8.8.8.8", *findings, how=how)
            self.assertEqual(self.known(component, "8.8.8.8"), known, (findings, how))
            try:
                self.answer(component.commands()[1].run("8.8.8.8"))
            except CannotDo:
                self.assertEqual(known, (0.0, 0.0))

    def test_of_whom_nothing_is_remembered(self) -> None:
        component = self.build(factory, exempt=["8.8.4.0/24"])
        for address, peer in (
            ("192.168.1.1", {}), ("127.0.0.1", {}), ("unix", {}), ("8.8.4.4", {}), ("8.8.8.8", {"login": "a@example.org"}),
            ("8.8.8.8", {"service": "lmtp"}), ("8.8.8.8", {"service": "submission"}),
        ):  # fmt: skip
            domains = [signed("their.example")] if peer else []
            self.ended(component, 20, address, SPAM, *domains, **peer)
            self.assertIsNone(self.of_network(component, address, **peer))
            self.assertIsNone(self.of_domains(component, signed("their.example"), **peer))
        for origin in ("8.8.8.8", "their.example"):
            self.assertEqual(self.known(component, origin), (0.0, 0.0))
        self.ended(component, 20, "8.8.4.4", SPAM, signed("their.example"))
        self.assertEqual(self.known(component, "their.example"), (20.0, 0.0))  # of the domain it is, whichever relay brings it
        self.assertIsNone(self.of_domains(component, signed("their.example"), login="a@example.org"))

    def test_a_store_that_does_not_work_holds_nobody(self) -> None:
        component = self.build(factory)
        self.ended(component, 10, "8.8.8.8", SPAM)
        self.state.failing.add("*")
        found = self.of_network(component, "8.8.8.8")
        assert found is not None
        self.assertEqual((found.score, found.properties["result"]), (0.0, "temperror"))
        self.ended(component, 1, "8.8.8.8", SPAM)
        self.assertRaises(CannotDo, self.known, component, "8.8.8.8")
        self.answer(component.run_periodically())
        self.state.failing.clear()
        self.assertEqual(self.known(component, "8.8.8.8"), (10.0, 0.0))

    def test_commands_take_addresses_networks_and_domains(self) -> None:
        component = self.build(factory)
        self.ended(component, 12, "8.8.8.8", SPAM, signed("b\u00fccher.example".encode("idna").decode()))
        show, forget = component.commands()
        for text in ("8.8.8.8", "[8.8.8.9]", "8.8.8.0/24", "::ffff:8.8.8.8"):
            self.assertEqual(self.answer(show.run(text))["network"], "8.8.8.0/24")
        for text in ("B\u00fccher.example", "alice@xn--bcher-kva.example."):
            found = self.answer(show.run(text))
            self.assertEqual((found["domain"], found["bad"], found["result"]), ("xn--bcher-kva.example", 12.0, "bad"))
            self.assertGreater(found["score"], 3.0)
        self.assertEqual(self.answer(show.run("other.example"))["result"], "too little is known")
        self.assertIn("8.8.8.0/24", self.answer(forget.run("8.8.8.1")))
        self.assertRaises(CannotDo, self.answer, forget.run("8.8.8.1"))
        self.assertRaises(CannotDo, self.answer, show.run("no domain at all"))
        self.assertEqual(self.known(component, "8.8.8.8"), (0.0, 0.0))


class Learnt(ReputationCase):
    def setUp(self) -> None:
        super().setUp()
        self.file = LearntFile.open(os.path.join(self.folder, "bayes.db"))
        self.addCleanup(lambda: self.file.close())

    def learn(self, kind: Kind, id: str, name: str = "a") -> None:
        self.file.learn(name, [Lesson(kind, name.encode().ljust(16), (1,), id)], now=1.0, vocabulary_most=1000)

    def after(self, component: Any, origin: str = "8.8.8.8") -> tuple[float, float]:
        self.answer(component.run_periodically())
        return self.known(component, origin)

    def test_what_users_call_spam_counts_against_where_it_came_from_and_moves_with_their_mind(self) -> None:
        component = self.build(factory)
        id = self.ended(component, 1, "8.8.8.8", signed("example.net"))
        self.assertEqual(self.after(component), (0.0, 1.0))
        self.learn("spam", id)
        self.assertEqual(self.after(component), (3.0, 1.0))
        self.assertEqual(self.known(component, "example.net"), (3.0, 1.0))
        self.assertEqual(self.answer(component._book.learnt_to("bayes")), 1)
        self.assertEqual(self.after(component), (3.0, 1.0))
        self.learn("ham", id)
        self.assertEqual(self.after(component), (0.0, 4.0))
        self.learn("forget", id)
        self.assertEqual(self.after(component), (0.0, 1.0))

    def test_a_message_counts_once_however_many_say_so(self) -> None:
        component = self.build(factory)
        id = self.ended(component, 1, "8.8.8.8")
        for user in ("a", "b", "c"):
            self.learn("spam", id, user)
        self.assertEqual(self.after(component), (3.0, 1.0))

    def test_what_is_not_remembered_counts_for_nobody(self) -> None:
        component = self.build(factory)
        self.learn("spam", "UNKNOWN")
        self.learn("spam", self.ended(component, 1, "8.8.8.8", how=REFUSED), "b")
        self.assertEqual(self.after(component), (0.0, 0.0))

    def test_a_file_that_begins_anew_is_read_from_its_beginning(self) -> None:
        component = self.build(factory)
        first, second = self.ended(component, 1, "8.8.8.8"), self.ended(component, 1, "9.9.9.9")
        for name in ("a", "b", "c"):
            self.learn("spam", first, name)
        self.after(component)
        self.file.close()
        for name in os.listdir(self.folder):
            os.unlink(os.path.join(self.folder, name))
        self.file = LearntFile.open(os.path.join(self.folder, "bayes.db"))
        self.learn("spam", second)
        self.assertEqual(self.after(component, "9.9.9.9"), (3.0, 1.0))

    def test_a_damaged_file_or_none_takes_nothing_away(self) -> None:
        component = self.build(factory)
        self.ended(component, 1, "8.8.8.8")
        self.file.close()
        with open(os.path.join(self.folder, "bayes.db"), "wb") as file:
            file.write(b"no database" * 1000)
        self.assertEqual(self.after(component), (0.0, 1.0))
        os.unlink(os.path.join(self.folder, "bayes.db"))
        self.assertEqual(self.after(component), (0.0, 1.0))
        self.assertEqual(self.after(self.build(factory, learnt_by="")), (0.0, 1.0))


@implementer(IContentFilter)
class Words:
    """Finds casinos odd, and refuses viruses."""

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        octets = b"".join(content.chunks())
        if b"virus" in octets:
            return Refuse("a virus", findings=(Finding("virus", 5.0),))
        return Signal("casino", 7.0, "a casino") if b"casino" in octets else Pass()


@implementer(IComponentFactory)
class WordsFactory:
    name = "words"
    summary = "Words"
    api_version = "1.0"
    provides = IContentFilter
    options = Options

    def build(self, options: Any, services: Services) -> Words:
        return Words()


class InAServer(MailCase):
    def said(self) -> list[str]:
        return [str(one.get("findings")) for one in self.steps("filter") if one.get("filter") == "reputation"]

    def test_a_host_is_met_with_what_came_of_its_mail(self) -> None:
        self.clock.advance(1_700_000_000.0)
        self.serve('[[filter]]\nuse = "words"\n[[filter]]\nuse = "reputation"\nminimum = 3\n', WordsFactory())
        for body, code, address in ((b"casino", 250, "8.8.8.8"), (b"virus", 550, "9.9.9.9"), (b"hello", 250, "7.7.7.7")):
            for _ in range(3):
                self.assertEqual(self.send(b"Subject: x\n\n" + body + b"\n", address=address).code, code)
        self.assertEqual(len(self.said()), 2)  # a virus counts three times
        for address, words in (
            ("8.8.8.1", r"reputation [1-4]\.\d+: 8\.8\.8\.0/24: 3\.0 bad and 0\.0 good of late"),
            ("9.9.9.1", r"reputation [1-4]\.?\d*: 9\.9\.9\.0/24: 9\.0 bad and 0\.0 good of late"),
            ("7.7.7.1", r"reputation -0\.\d+: 7\.7\.7\.0/24: 0\.0 bad and 3\.0 good of late"),
        ):
            self.assertEqual(self.send(address=address).code, 250)
            self.assertRegex(self.said()[-1], words)


class Contract(FilterContract, ReputationCase):
    def make(self) -> Any:
        return self.build(factory)
