"""The filter that verifies DKIM signatures: what it finds, and how it asks."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from mailserver.filters.dkim import factory
from mailserver.filters.signed_content import AT_ONCE_OCTETS
from mailserver.mail.answers import Pass
from mailserver.mail.content import Content
from mailserver.testing import FilterCase
from tests.trust.test_dkim import MESSAGE, NOW, RSA, signed

NAME = "s1._domainkey.example.org"


class Findings(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock.rightNow = float(NOW)
        self.resolver.zones[NAME] = {"TXT": [RSA.record]}

    def found(self, content: Content, **options: Any) -> list[Any]:
        verdict = self.judge(self.build(factory, **options).judge_content(self.envelope(), content))
        self.assertIs(type(verdict), Pass)
        return list(verdict.findings)

    def test_a_signature_that_verifies(self) -> None:
        [finding] = self.found(signed())
        self.assertEqual((finding.name, finding.score), ("dkim", -0.1))
        self.assertEqual(finding.evidence, "pass example.org (s1, rsa-sha256)")
        self.assertEqual({**finding.properties}["bits"], 2048)

    def test_one_that_does_not_says_why_and_refuses_nothing(self) -> None:
        changed = Content.of(b"".join(signed().chunks()).replace(b"Hello", b"Hallo"))
        [finding] = self.found(changed, failed=2)
        self.assertEqual(finding.score, 2)
        self.assertEqual(finding.evidence, "fail example.org (s1, rsa-sha256): the body has been changed")

    def test_each_signature_has_a_finding_and_each_key_is_asked_for_once(self) -> None:
        asked: list[str] = []
        query = self.resolver.query

        def noting(name: str, record_type: str) -> Any:
            asked.append(name)
            return query(name, record_type)

        self.resolver.query = noting  # type: ignore[method-assign]
        twice = signed().with_prefix(b"DKIM-Signature: nonsense\r\n").with_prefix(signed().prefix)
        self.assertEqual([one.properties["result"] for one in self.found(twice)], ["pass", "permerror", "pass"])
        self.assertEqual(asked, [NAME])

    def test_of_several_that_come_to_the_same_one_has_the_score(self) -> None:
        broken = signed(MESSAGE.replace(b"Subject:", b"Subject: other")).prefix
        content = signed().with_prefix(broken).with_prefix(signed().prefix).with_prefix(broken)
        found = [(one.properties["result"], one.score) for one in self.found(content)]
        self.assertEqual(found, [("fail", 0.5), ("pass", -0.1), ("fail", 0), ("pass", 0)])

    def test_a_message_without_one(self) -> None:
        [finding] = self.found(Content.of(MESSAGE), none=0.3)
        self.assertEqual((finding.properties["result"], finding.score), ("none", 0.3))

    def test_a_dns_that_cannot_tell_is_temporary_and_one_that_has_no_key_is_not(self) -> None:
        self.resolver.failing.add(NAME)
        self.assertEqual([one.properties["result"] for one in self.found(signed())], ["temperror"])
        self.resolver.failing.clear()
        self.resolver.zones.clear()
        self.assertEqual([one.properties["result"] for one in self.found(signed())], ["permerror"])

    def test_a_large_body_and_one_in_a_file_are_hashed_in_a_thread(self) -> None:
        large = MESSAGE + b"x" * 70 + b"\r\n" * AT_ONCE_OCTETS
        path = self.mktemp()
        whole = b"".join(signed(large).chunks())
        with open(path, "wb") as file:
            file.write(whole)
        calls: list[Any] = []

        def run_in_thread(function: Any, *arguments: Any) -> Deferred[Any]:
            calls.append(function)
            done: Deferred[Any] = Deferred()
            done.callback(function(*arguments))
            return done

        component = self.build(factory)
        component._run_in_thread = run_in_thread
        for content in (Content.of(whole), Content.at(path, len(whole))):
            verdict = self.judge(component.judge_content(self.envelope(), content))
            self.assertEqual([one.properties["result"] for one in verdict.findings], ["pass"])
        self.assertEqual(len(calls), 2)
