"""The greylist: who has to come again, who does not, and what is remembered."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from twisted.internet.defer import Deferred

from mailserver.api import ConfigurationError, Defer, Envelope, Finding, Pass, StorageBroken, StorageFull, Verdict
from mailserver.filters.greylist import factory
from mailserver.testing import FilterCase, FilterContract, MailCase
from tests.documents import blocks, page_text

ADDRESS = "8.4.4.8"
DAY = 86_400
DOUBT = Finding("dnsbl", 3.0, source="dnsbl")


def spf(result: str, domain: str, scope: str = "mfrom") -> Finding:
    return Finding("spf", 0.0, "", {"result": result, "domain": domain, "scope": scope}, "spf")


class Rules(FilterCase):
    def asked(
        self, component: Any, address: str = ADDRESS, *findings: Finding, sender: str | None = "x@example.net",
        recipient: str = "user@example.org", **facts: Any,
    ) -> Verdict:  # fmt: skip
        envelope: Envelope = replace(self.envelope(sender, peer=self.peer(address, **facts)), findings=findings or (DOUBT,))
        return self.judge(component.judge_recipient(envelope, self.recipient(recipient)))

    def codes(self, component: Any, *questions: dict[str, Any]) -> list[bool]:
        """Whether each is let in."""
        return [not isinstance(self.asked(component, **one), Defer) for one in questions]

    def test_who_comes_again_in_time_is_let_in_and_remembered(self) -> None:
        component = self.build(factory, wait="5m", window="1d", remember="10d")
        verdict = self.asked(component)
        self.assertDeferred(verdict, "8.4.4.0/24")
        self.assertEqual([(one.name, one.properties["result"]) for one in verdict.findings], [("greylist", "temperror")])
        self.clock.advance(299)
        self.assertDeferred(self.asked(component))
        self.clock.advance(1)
        verdict = self.asked(component)
        self.assertEqual((type(verdict), verdict.findings[0].properties["result"]), (Pass, "pass"))
        for _ in range(5):  # each message prolongs it
            self.clock.advance(9 * DAY)
            self.assertIs(type(self.asked(component)), Pass)
        self.clock.advance(11 * DAY)
        self.assertDeferred(self.asked(component))

    def test_who_comes_again_too_late_is_a_stranger_again(self) -> None:
        component = self.build(factory, window="1d")
        self.asked(component)
        self.clock.advance(DAY + 1)
        self.assertDeferred(self.asked(component))
        self.clock.advance(300)
        self.assertIs(type(self.asked(component)), Pass)

    def test_another_sender_recipient_or_network_is_another_matter(self) -> None:
        component = self.build(factory)
        self.asked(component)
        self.clock.advance(300)
        self.assertIs(type(self.asked(component)), Pass)
        for address, facts, let_in in (
            ("8.4.4.77", {}, True),
            ("::ffff:8.4.4.9", {}, True),
            (ADDRESS, {"sender": "X@Example.NET", "recipient": "USER@example.org"}, True),
            ("8.4.5.8", {}, False),
            (ADDRESS, {"sender": "y@example.net"}, False),
            (ADDRESS, {"sender": None}, False),
            (ADDRESS, {"recipient": "other@example.org"}, False),
            (ADDRESS, {"sender": "x@example.ne", "recipient": "tuser@example.org"}, False),
            ("2a00:1450::25", {}, False),
        ):
            self.assertEqual(self.codes(component, {"address": address, **facts}), [let_in], (address, facts))

    def test_two_hosts_of_one_pool_are_one_where_spf_says_pass(self) -> None:
        component = self.build(factory)
        passed = spf("pass", "Example.net")
        self.assertDeferred(self.asked(component, "8.4.4.8", DOUBT, passed), "example.net")
        self.clock.advance(300)
        self.assertIs(type(self.asked(component, "2a00:1450::25", DOUBT, passed)), Pass)
        for other in (spf("softfail", "example.net"), spf("none", "example.net"), spf("pass", "example.com"), spf("pass", "")):
            self.assertDeferred(self.asked(component, "9.9.9.9", DOUBT, other))

    def test_a_dns_that_cannot_tell_once_makes_no_second_stranger_of_one(self) -> None:
        told, untold = spf("pass", "example.net"), spf("temperror", "example.net")
        component = self.build(factory)
        for first, second, sender in ((untold, told, "a@example.net"), (told, untold, "b@example.net")):
            self.assertDeferred(self.asked(component, ADDRESS, DOUBT, first, sender=sender))
            self.clock.advance(300)
            self.assertIs(type(self.asked(component, ADDRESS, DOUBT, second, sender=sender)), Pass)

    def test_the_domain_of_the_sender_counts_before_that_of_the_hello_name(self) -> None:
        component = self.build(factory)
        both = spf("pass", "mail.example.net", "helo"), spf("pass", "example.net")
        self.assertDeferred(self.asked(component, ADDRESS, DOUBT, *both), "from example.net")
        self.assertDeferred(self.asked(component, ADDRESS, DOUBT, both[0], sender=None), "from mail.example.net")

    def test_only_the_doubtful_are_asked_unless_everybody_is(self) -> None:
        for scores, doubtful, everybody, let_in in (
            ([0.9], 1.0, False, True),
            ([0.5, 0.5], 1.0, False, False),
            ([3.0, -2.5], 1.0, False, True),
            ([], 1.0, False, True),
            ([], 1.0, True, False),
            ([-5.0], 1.0, True, False),
            ([0.0], 0.0, False, False),
        ):
            component = self.build(factory, doubtful=doubtful, everybody=everybody)
            findings = [Finding("some", score, source="some") for score in scores] or [Finding("none", source="some")]
            sender = f"x{abs(hash((tuple(scores), doubtful, everybody)))}@example.net"
            verdict = self.asked(component, ADDRESS, *findings, sender=sender)
            self.assertEqual(not isinstance(verdict, Defer), let_in, scores)

    def test_nobody_of_ours_is_ever_asked_to_come_again(self) -> None:
        component = self.build(factory, everybody=True, exempt=["8.5.0.0/16"])
        for address, facts in (
            ("127.0.0.1", {}), ("::1", {}), ("10.0.0.1", {}), ("fd00::1", {}), ("unix", {}), ("local", {}), ("proxy:8.4.4.8", {}),
            ("8.5.1.1", {}), (ADDRESS, {"login": "user"}), (ADDRESS, {"service": "submission"}), (ADDRESS, {"service": "lmtp"}),
            (ADDRESS, {"recipient": "Postmaster@example.org"}), (ADDRESS, {"recipient": "abuse@example.org"}),
        ):  # fmt: skip
            more: dict[str, Any] = dict(facts)
            self.assertEqual(self.asked(component, address, **more), Pass(), (address, facts))
        for finding, let_in in (
            (Finding("accepted", source="lists"), True),
            (Finding("contact", source="contacts"), True),
            (Finding("contact", 0.0, "", {"result": "none"}, "contacts"), False),
        ):
            self.assertEqual(isinstance(self.asked(component, ADDRESS, DOUBT, finding), Pass), let_in, finding)

    def test_a_source_that_has_come_again_often_is_known_for_all(self) -> None:
        component = self.build(factory, known_after=3, remember="10d")
        for n in range(3):
            question = {"sender": f"{n}@example.net"}
            self.assertEqual(self.codes(component, question), [False])
            self.clock.advance(300)
            self.assertEqual(self.codes(component, question, question, question), [True, True, True])  # counted once
        self.assertEqual(self.codes(component, {"sender": "new@example.net"}), [True])
        self.assertEqual(self.codes(component, {"sender": "new@example.net", "address": "9.9.9.9"}), [False])
        self.clock.advance(10 * DAY)
        self.assertEqual(self.codes(component, {"sender": "newer@example.net"}), [False])

    def test_none_is_known_for_all_where_that_is_off(self) -> None:
        component = self.build(factory, known_after=0)
        for n in range(8):
            self.asked(component, sender=f"{n}@example.net")
        self.clock.advance(300)
        for n in range(8):
            self.assertIs(type(self.asked(component, sender=f"{n}@example.net")), Pass)
        self.assertDeferred(self.asked(component, sender="new@example.net"))

    def test_of_many_who_come_again_at_once_all_are_let_in_and_one_is_counted(self) -> None:
        slow = SlowState(self.state)
        component = self.build(factory, known_after=2)
        component._state = slow
        for want, seconds in ((Defer, 300), (Pass, 0)):
            envelope = replace(self.envelope("x@example.net", peer=self.peer(ADDRESS)), findings=(DOUBT,))
            waiting = [self.begin(component.judge_recipient(envelope, self.recipient())) for _ in range(5)]
            slow.run()
            self.assertEqual({type(self.judge(one)) for one in waiting}, {want})
            self.clock.advance(seconds)
        component._state = self.state
        self.assertDeferred(self.asked(component, sender="new@example.net"))

    def test_however_their_questions_mingle_early_tries_wait_and_later_ones_do_not(self) -> None:
        for seed in range(100):
            slow = SlowState(self.state, Random(seed))
            component = self.build(factory, known_after=0)
            component._state = slow
            sender = f"{seed}@example.net"
            for want, seconds in ((Defer, 300), (Pass, 0)):
                envelope = replace(self.envelope(sender, peer=self.peer(ADDRESS)), findings=(DOUBT,))
                waiting = [self.begin(component.judge_recipient(envelope, self.recipient())) for _ in range(3)]
                slow.run()
                self.assertEqual([type(self.judge(one)) for one in waiting], [want] * 3, f"order {seed}")
                self.clock.advance(seconds)

    def test_a_store_that_fails_holds_nobody(self) -> None:
        for error in (StorageBroken("no disk"), StorageFull("no room")):
            for verb in ("get", "put_if_absent"):
                component = self.build(factory)
                component._state = BrokenState(self.state, verb, error)
                verdict = self.asked(component)
                self.assertIs(type(verdict), Pass)
                self.assertEqual(verdict.findings[0].properties["result"], "temperror")

    def test_what_is_kept_names_nobody(self) -> None:
        self.asked(self.build(factory), sender="x" * 64 + "@example.net")
        keys = [key for key, _, _ in self.answer(self.state.items())]
        self.assertEqual(len(keys), 2)
        self.assertFalse([key for key in keys if "example" in key or "8.4" in key or len(key) > 50])

    def test_faults_of_the_configuration_are_named(self) -> None:
        for options, words in (
            ({"wait": "2h", "window": "1h"}, "window"),
            ({"wait": 0}, "wait"),
            ({"ipv4_bits": 33}, "ipv4_bits"),
            ({"known_after": -1}, "known_after"),
            ({"doubtful": float("nan")}, "doubtful"),
        ):
            with self.assertRaisesRegex(ConfigurationError, words):
                self.build(factory, **options)  # type: ignore[arg-type]


class SlowState:
    """Answers in turns, so that others are asked between two verbs: in the order of the questions, or in any."""

    def __init__(self, state: Any, order: Random | None = None) -> None:
        self._state = state
        self._order = order
        self._waiting: list[Deferred[None]] = []

    def __getattr__(self, verb: str) -> Any:
        async def later(*arguments: Any) -> Any:
            turn: Deferred[None] = Deferred()
            self._waiting.append(turn)
            await turn
            return await getattr(self._state, verb)(*arguments)

        return later

    def run(self) -> None:
        while self._waiting:
            at = self._order.randrange(len(self._waiting)) if self._order is not None else 0
            self._waiting.pop(at).callback(None)


class BrokenState:
    """One verb fails."""

    def __init__(self, state: Any, verb: str, error: Exception) -> None:
        self._state, self._verb, self._error = state, verb, error

    def __getattr__(self, verb: str) -> Any:
        async def fails(*arguments: Any) -> Any:
            raise self._error

        return fails if verb == self._verb else getattr(self._state, verb)


class GreylistKeepsTheContract(FilterContract, FilterCase):
    def make(self) -> Any:
        return self.build(factory, everybody=True)


class OverSMTP(MailCase):
    def test_a_doubtful_stranger_waits_and_one_recipient_is_not_the_other(self) -> None:
        self.serve('[[filter]]\nuse = "peer_rules"\n[[filter]]\nuse = "greylist"\n')
        self.assertEqual(self.send(address=ADDRESS).recipients["alice@example.org"].code, 450)  # it has no name
        self.clock.advance(300)
        sent = self.send(address=ADDRESS, recipients=["alice@example.org", "bob@example.org"])
        self.assertEqual([one.code for one in sent.recipients.values()], [250, 450])
        self.assertEqual(len(self.mailbox("alice@example.org")), 1)
        self.resolver.zones["9.9.9.9.in-addr.arpa"] = {"PTR": ["client.example.net"]}
        self.resolver.zones["client.example.net"] = {"A": ["9.9.9.9"]}
        self.assertEqual(self.send(address="9.9.9.9").code, 250)

    def test_the_page_shows_a_table_that_loads(self) -> None:
        [page] = [block for block in blocks(page_text("filters.md"), "toml") if '"greylist"' in block]
        self.serve(page)
        self.assertEqual(self.component("greylist")._options.doubtful, 1.0)
