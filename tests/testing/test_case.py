"""The testing kit: that it says yes only to what is so."""

from __future__ import annotations

import unittest
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailserver.dns.reading import CHAIN_NAMES
from mailserver.interfaces import IPeerFilter, IRecords, IResolver, IStateStore
from mailserver.mail.answers import Accept, Defer, Finding, Pass, Quarantine, Refuse, Signal
from mailserver.mail.dns_records import LookupFailed
from mailserver.mail.envelope import MailParameters
from mailserver.mail.faults import StorageBroken
from mailserver.mail.process_failure import ProcessFailed
from mailserver.testing import FakeResolver, FilterCase, MemoryState


async def answer(value: Any) -> Any:
    return value


async def fail() -> Any:
    raise ZeroDivisionError("the component's own")


class Asking(FilterCase):
    def test_an_answer_that_is_there_is_given(self) -> None:
        self.assertEqual(self.answer(answer(5)), 5)
        self.assertEqual(self.judge(answer(Pass())), Pass())

    def test_the_classes_behind_are_set_up_too(self) -> None:
        class Behind(SynchronousTestCase):
            is_set_up = False

            def setUp(self) -> None:
                self.is_set_up = True

        class One(FilterCase, Behind):
            def runTest(self) -> None: ...

        one = One()
        one.run(unittest.TestResult())
        self.assertTrue(one.is_set_up)

    def test_the_components_own_error_is_raised(self) -> None:
        with self.assertRaisesRegex(ZeroDivisionError, "own"):
            self.answer(fail())
        with self.assertRaises(ZeroDivisionError):
            self.answer(self.begin(fail()))

    def test_what_is_no_verdict_fails_the_test(self) -> None:
        for wrong in (None, True, "refuse", Refuse):
            self.assertRaises(self.failureException, self.judge, answer(wrong))

    def test_what_still_waits_fails_the_test_and_says_what_to_do(self) -> None:
        with self.assertRaisesRegex(self.failureException, "clock.advance"):
            self.judge(Deferred())

    def test_time_passes_when_the_test_says_so(self) -> None:
        async def later() -> Any:
            waited: Deferred[None] = Deferred()
            self.clock.callLater(3, waited.callback, None)
            await waited
            return Pass()

        asked = self.begin(later())
        self.clock.advance(3)
        self.assertPassed(self.judge(asked))


class Saying(FilterCase):
    ASSERTIONS = {
        "assertPassed": Pass(),
        "assertRefused": Refuse("because of x"),
        "assertDeferred": Defer("because of x"),
        "assertQuarantined": Quarantine("because of x"),
        "assertAccepted": Accept("because of x"),
    }

    def test_each_assertion_takes_its_own_verdict_and_no_other(self) -> None:
        for name in self.ASSERTIONS:
            for other, verdict in self.ASSERTIONS.items():
                if name == other:
                    getattr(self, name)(verdict)
                else:
                    self.assertRaises(self.failureException, getattr(self, name), verdict)

    def test_the_reason_is_matched(self) -> None:
        self.assertRefused(Refuse("because of x"), "of [xyz]")
        self.assertRaises(self.failureException, self.assertRefused, Refuse("because of x"), "y")

    def test_a_pass_has_the_findings_that_are_named_and_no_others(self) -> None:
        found = Pass(findings=(Finding("one"), Finding("two", 1.5)), notes={"a": 1})
        self.assertPassed(found, "one", "two")
        self.assertPassed(Pass(notes={"a": 1}))
        for names in ((), ("one",), ("two", "one")):
            self.assertRaises(self.failureException, self.assertPassed, found, *names)
        self.assertRaises(self.failureException, self.assertPassed, Signal("one", 0.0, ""), "one")

    def test_a_signals_name_and_score_are_matched(self) -> None:
        signal = Signal("late", 1.5, "by a day")
        self.assertSignal(signal, "late", 1.5, "day")
        self.assertSignal(signal, "late")
        for wrong in (("early",), ("late", 2.0), ("late", 1.5, "hour")):
            self.assertRaises(self.failureException, self.assertSignal, signal, *wrong)
        self.assertRaises(self.failureException, self.assertSignal, Pass(), "late")


class Making(FilterCase):
    def test_contents_have_the_line_ends_of_the_wire(self) -> None:
        self.assertEqual(self.content(b"A: b\nC: d\r\n\nx\n").data, b"A: b\r\nC: d\r\n\r\nx\r\n")

    def test_envelopes_have_ids_of_their_own_and_the_peer_given(self) -> None:
        one = self.envelope(None, ["a@example.org", "b@example.org"], peer=self.peer("::1", hello=""))
        self.assertEqual((one.sender, len(one.recipients), one.peer.address, one.peer.hello_verb), (None, 2, "::1", ""))
        self.assertNotEqual(one.id, self.envelope().id)
        self.assertEqual(one.received_at, self.clock.seconds())

    def test_a_call_in_another_process_comes_to_what_the_test_says(self) -> None:
        called = self.services.run_in_process(len, "four")
        self.assertEqual(self.answer(called), 4)
        self.process_failure = ProcessFailed("died", "signal 11")
        with self.assertRaisesRegex(ProcessFailed, "signal 11"):
            self.answer(self.services.run_in_process(len, "four"))
        self.process_failure = None
        self.assertEqual(self.answer(self.services.run_in_process(len, "four")), 4)

    def test_threads_run_at_once(self) -> None:
        self.assertEqual(self.answer(self.services.run_in_thread(divmod, 7, 2)), (3, 1))


class Given(FilterCase):
    def test_the_time_looks_like_one_and_a_peer_that_has_greeted_has_said_ehlo(self) -> None:
        self.assertGreater(self.clock.seconds(), 1_700_000_000)
        self.assertEqual((self.peer().hello, self.peer().hello_verb), ("client.example.net", "EHLO"))

    def test_what_a_message_is_given_is_kept_and_an_address_may_be_international(self) -> None:
        parameters = MailParameters(body="8BITMIME", envid="x")
        self.assertEqual(self.envelope(parameters=parameters).parameters, parameters)
        self.assertEqual(self.envelope("jürgen@example.net", ["jürgen@example.org"]).recipients[0].address.local, "jürgen")


@implementer(IPeerFilter)
class Broken:
    async def judge_peer(self, peer: Any) -> Any:
        raise ZeroDivisionError


class Configured(FilterCase):
    def test_the_cores_rules_hold(self) -> None:
        for on_error, check in (
            ("defer", self.assertDeferred),
            ("skip", self.assertPassed),
            ("refuse", self.assertRefused),
        ):
            judgement = self.configured(Broken(), on_error=on_error).peer(self.peer())  # type: ignore[arg-type]
            assert not isinstance(judgement, Deferred)
            check(judgement.verdict)


class Itself(SynchronousTestCase):
    def test_a_case_runs_under_the_standard_runner(self) -> None:
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(Making).run(result)
        self.assertEqual((result.testsRun, result.errors, result.failures), (4, [], []))


class State(FilterCase):
    def test_it_is_a_state_store_whose_facts_expire_by_the_clock(self) -> None:
        verifyObject(IStateStore, self.state)
        self.answer(self.state.put("k", b"v", 60))
        self.assertEqual(self.answer(self.state.get("k")), b"v")
        self.assertIsNone(self.answer(self.state.space("rates").get("k")))
        self.clock.advance(60)
        self.assertIsNone(self.answer(self.state.get("k")))
        self.assertEqual(self.answer(self.state.items()), [])

    def test_a_fact_can_be_dropped_and_must_be_bytes(self) -> None:
        state = MemoryState(self.clock)
        self.answer(state.put("k", b"v", 60))
        self.answer(state.drop("k"))
        self.answer(state.drop("k"))
        self.assertIsNone(self.answer(state.get("k")))
        with self.assertRaises(TypeError):
            self.answer(state.put("k", "text", 60))  # type: ignore[arg-type]


class Resolver(FilterCase):
    def test_zones_answer_without_regard_to_case_or_a_final_dot(self) -> None:
        resolver = FakeResolver({"Example.org.": {"MX": ["10 mx.example.org"]}})
        verifyObject(IResolver, resolver)
        found = self.answer(resolver.query("EXAMPLE.org", "MX"))
        self.assertEqual((found.records, found.name_exists), (("10 mx.example.org",), True))
        self.assertEqual(resolver.asked, [("example.org", "MX")])

    def test_a_cname_is_followed_and_a_circle_is_a_failure(self) -> None:
        zones = {"a.example": {"CNAME": ["B.example."]}, "b.example": {"A": ["192.0.2.1"]}, "c.example": {"CNAME": ["c.example"]}}
        resolver = FakeResolver(zones)
        found = self.answer(resolver.query("a.example", "A"))
        self.assertEqual((found.records, found.canonical_name), (("192.0.2.1",), "b.example"))
        self.assertEqual(self.answer(resolver.query("a.example", "CNAME")).records, ("B.example.",))
        with self.assertRaises(LookupFailed):
            self.answer(resolver.query("c.example", "A"))

    def test_eight_names_in_a_chain_are_followed_and_no_more_as_the_server_does(self) -> None:
        zones: dict[str, Any] = {f"{n}.example": {"CNAME": [f"{n - 1}.example"]} for n in range(1, 10)}
        resolver = FakeResolver({**zones, "0.example": {"A": ["192.0.2.1"]}})
        found = self.answer(resolver.query(f"{CHAIN_NAMES}.example", "A"))
        self.assertEqual((found.records, found.canonical_name, found.authenticated), (("192.0.2.1",), "0.example", False))
        with self.assertRaises(LookupFailed):
            self.answer(resolver.query(f"{CHAIN_NAMES + 1}.example", "A"))
        self.assertTrue(self.answer(FakeResolver(zones, authenticated=True).query("1.example", "CNAME")).authenticated)

    def test_no_such_type_no_such_name_and_no_answer_are_three_things(self) -> None:
        resolver = FakeResolver({"example.org": {"A": ["192.0.2.1"]}}, failing=["dead.example"])
        nothing = self.answer(resolver.query("example.org", "MX"))
        self.assertEqual((nothing.records, nothing.name_exists), ((), True))
        self.assertFalse(self.answer(resolver.query("nowhere.example", "A")).name_exists)
        with self.assertRaises(LookupFailed):
            self.answer(resolver.query("dead.example", "A"))


class Stores(FilterCase):
    def test_each_component_has_a_space_and_records_of_its_own(self) -> None:
        one, two = self.services_for("one"), self.services_for("two")
        for services, value in ((one, b"1"), (two, b"2"), (self.services, b"3")):
            self.answer(services.state.put("k", value, 60))
            self.answer(services.records.put("k", value))
        self.assertEqual(self.answer(self.services_for("one").state.get("k")), b"1")
        self.assertEqual(self.answer(self.state.space("two").get("k")), b"2")
        self.assertEqual(self.answer(self.state.get("k")), b"3")
        self.assertEqual(self.answer(self.services_for("one").records.get("k")), b"1")
        self.assertEqual(self.answer(self.records.space("two").get("k")), b"2")
        self.assertEqual(self.answer(self.records.get("k")), b"3")

    def test_a_verb_that_is_to_fail_raises_storage_broken_and_the_others_work(self) -> None:
        for store, rest in ((self.state, (60,)), (self.records, ())):
            store.failing.add("get")
            self.answer(store.put("k", b"v", *rest))
            with self.assertRaises(StorageBroken):
                self.answer(store.get("k"))
            store.failing = {"*"}
            with self.assertRaises(StorageBroken):
                self.answer(store.items())
            store.failing.clear()
            self.assertEqual(self.answer(store.get("k")), b"v")
            self.assertTrue(self.answer(store.put_if_absent("other", b"v", *rest)))

    def test_every_verb_of_both_can_fail(self) -> None:
        arguments = {"key": "k", "value": b"v", "lifetime": 60, "n": 1, "old": None, "new": b"v"}
        for store, interface in ((self.state, IStateStore), (self.records, IRecords)):
            store.failing.add("*")
            for verb in interface.names():
                wanted = interface[verb].getSignatureInfo()["required"]
                with self.assertRaises(StorageBroken):
                    self.answer(getattr(store, verb)(*(arguments[one] for one in wanted)))


class Forgetful(FilterCase):
    """Not a test of ours: what its author has forgotten is to be told."""

    def runTest(self) -> None:
        for _ in range(300):
            self.answer(self.state.get("awaited"))
        if self.state.get("met"):
            self.records.space("other").put("k", b"v")
        self.state.space("one").take("t")


class Forgotten(SynchronousTestCase):
    def test_a_verb_that_nobody_awaits_fails_the_test_with_its_name_and_its_line(self) -> None:
        result = unittest.TestResult()
        Forgetful().run(result)
        (told,) = [trace for _, trace in result.errors + result.failures]
        for words in ("never awaited", "state.get('met') at ", "records.put('k') at ", "state.take('t') at ", "test_case.py:"):
            self.assertIn(words, told)
        self.assertNotIn("'awaited'", told)
