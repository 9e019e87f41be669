"""The filter that asks DNS lists: what it finds, whom it asks about, and how lists misbehave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.logger import capturedLogs

from mailserver.api import ConfigurationError
from mailserver.filters.dnsbl import DAY_SECONDS, REST_SECONDS, factory
from mailserver.mail.answers import Defer, Finding, Pass, Refuse
from mailserver.mail.dns_records import LookupFailed
from mailserver.mail.envelope import Envelope, Peer
from mailserver.testing import FilterCase, FilterContract, MailCase
from tests.documents import blocks, page_text

V4, V6 = "8.4.4.8", "2a00:1450::25"
V6_NAME = "5.2.0.0" + ".0" * 20 + ".0.5.4.1.0.0.a.2"
BL, WL, DBL = "bl.example.net", "wl.example.net", "dbl.example.net"
V6_TEST = "2.0.0.0.0.0.f.7.f.f.f.f" + ".0" * 20


class Lists(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        for zone in (BL, WL):
            self.record(f"2.0.0.127.{zone}", "127.0.0.2")
            self.record(f"{V6_TEST}.{zone}", "127.0.0.2")
        self.record(f"test.{DBL}", "127.0.1.2")

    def record(self, name: str, *codes: str) -> None:
        self.resolver.zones[name] = {"A": list(codes)}

    def built(self, *tables: dict[str, Any], **options: Any) -> Any:
        return self.build(factory, list=list(tables) or [{"zone": BL, "score": 3}], **options)

    def met(self, component: Any, peer: Peer) -> None:
        """Connected: what is noted stays with the peer."""
        verdict = self.judge(component.judge_peer(peer))
        self.assertEqual((type(verdict), verdict.findings), (Pass, ()))
        peer.notes.keep("tested", verdict.notes)

    def envelope_of(self, component: Any, address: str = V4, **facts: Any) -> Envelope:
        self.met(component, self.peer(address, hello="", **facts))
        peer = self.peer(address, **facts)
        return self.envelope(peer=peer)

    def found(self, component: Any, address: str = V4, sender: str | None = "x@example.net", **facts: Any) -> Sequence[Finding]:
        peer = self.peer(address, **facts)
        verdict = self.judge(component.judge_sender(self.envelope(sender, peer=peer)))
        self.assertIs(type(verdict), Pass)
        return verdict.findings

    def said(self, component: Any, address: str = V4, **facts: Any) -> list[tuple[Any, ...]]:
        findings = self.found(component, address, **facts)
        return [(one.properties["list"], one.properties["result"], one.properties["code"], one.score) for one in findings]


class Findings(Lists):
    def test_a_listed_address_of_either_kind_is_found(self) -> None:
        self.record(f"8.4.4.8.{BL}", "127.0.0.2")
        self.record(f"{V6_NAME}.{BL}", "127.0.0.9")
        component = self.built()
        self.assertEqual(self.said(component), [(BL, "fail", "127.0.0.2", 3.0)])
        self.assertEqual(self.said(component, V6), [(BL, "fail", "127.0.0.9", 3.0)])
        self.assertEqual(self.said(component, "::ffff:8.4.4.8"), [(BL, "fail", "127.0.0.2", 3.0)])
        self.assertEqual(self.said(component, "8.8.4.5"), [])
        [finding] = self.found(component)
        self.assertEqual((finding.name, finding.evidence), ("dnsbl", f"8.4.4.8 is listed by {BL} (127.0.0.2)"))

    def test_the_codes_tell_the_score_and_the_narrowest_set_counts(self) -> None:
        codes = {"127.0.0.0/24": 1, "127.0.0.4-127.0.0.7": 4, "127.0.0.5": 2, "127.0.1.0/24": -2}
        for answer, score in (
            (["127.0.0.9"], 1.0),
            (["127.0.0.6"], 4.0),
            (["127.0.0.5"], 2.0),
            (["127.0.0.9", "127.0.0.4"], 4.0),
            (["127.0.1.7"], -2.0),
            (["127.0.0.9", "127.0.1.7"], -2.0),
            (["127.0.9.9"], 0.5),
        ):
            self.record(f"8.4.4.8.{BL}", *answer)
            component = self.built({"zone": BL, "codes": codes, "score": 0.5})
            self.assertEqual([one.score for one in self.found(component)], [score], answer)

    def test_a_list_of_the_good_takes_away(self) -> None:
        self.record(f"8.4.4.8.{BL}", "127.0.0.2")
        self.record(f"8.4.4.8.{WL}", "127.0.10.3")
        tables = {"zone": BL, "score": 3}, {"zone": WL, "score": -2, "name": "friends"}
        component = self.built(*tables, verdict="refuse", threshold=2)
        self.assertEqual(self.said(component), [(BL, "fail", "127.0.0.2", 3.0), ("friends", "pass", "127.0.10.3", -2.0)])
        self.resolver.zones.pop(f"8.4.4.8.{WL}")
        self.assertRefused(self.judge(component.judge_sender(self.envelope(peer=self.peer(V4)))), BL)

    def test_the_names_that_are_given_are_asked_about_where_a_list_says_so(self) -> None:
        self.record(f"client.example.net.{DBL}", "127.0.1.2")
        self.record(f"bad.example.{DBL}", "127.0.1.4")
        component = self.built({"zone": DBL, "score": 2, "about": ["hello", "sender"]})
        self.assertEqual(
            [one.evidence for one in self.found(component, sender="x@Bad.Example")],
            [f"client.example.net is listed by {DBL} (127.0.1.2)", f"bad.example is listed by {DBL} (127.0.1.4)"],
        )
        for hello in ("client.example.net", "Client.Example.NET", "client.example.net."):
            for sender in ("x@client.example.net", None):  # one name, one finding
                self.assertEqual(len(self.found(component, sender=sender, hello=hello)), 1)
        self.assertNotIn(("8.4.4.8." + DBL, "A"), self.resolver.asked)

    def test_what_is_no_domain_is_not_asked_about(self) -> None:
        component = self.built({"zone": DBL, "score": 2, "about": ["hello", "sender"]})
        for hello, sender in (("[8.4.4.8]", None), ("8.4.4.8", "x@[8.4.4.8]"), ("localhost", None), ("", None)):
            self.assertEqual(self.found(component, sender=sender, hello=hello), ())
        self.assertEqual(self.resolver.asked, [])

    def test_the_verdict_falls_at_mail_by_option_and_threshold(self) -> None:
        self.record(f"8.4.4.8.{BL}", "127.0.0.2")
        for verdict, threshold, kind in (
            ("score", 3, Pass), ("refuse", 3, Refuse), ("defer", 3, Defer), ("refuse", 3.5, Pass),
        ):  # fmt: skip
            component = self.built(verdict=verdict, threshold=threshold)
            said = self.judge(component.judge_sender(self.envelope(peer=self.peer(V4))))
            self.assertIs(type(said), kind, verdict)
            self.assertEqual(len(said.findings), 1)

    def test_faults_of_the_configuration_are_named(self) -> None:
        for tables, words in (
            ([], "list"),
            ([{"zone": BL}], "score or codes"),
            ([{"zone": BL, "codes": {"1.2.3.4": 1}}], "127.0.0.0/8"),
            ([{"zone": BL, "score": float("nan")}], "score"),
            ([{"zone": BL, "score": 1, "about": []}], "about"),
            ([{"zone": BL, "score": 1}, {"zone": BL, "score": 2}], "same name"),
            ([{"zone": "", "score": 1}], "zone"),
        ):
            with self.assertRaisesRegex(ConfigurationError, words):
                self.build(factory, list=tables)


class WhoIsAskedAbout(Lists):
    def test_the_address_is_asked_about_once_for_a_connection(self) -> None:
        self.record(f"8.4.4.8.{BL}", "127.0.0.2")
        component = self.built()
        peer = self.peer(V4, hello="")
        self.met(component, peer)
        count = len(self.resolver.asked)
        self.resolver.zones.clear()
        later = Peer(V4, 1, "mx", "client.example.net", "EHLO", notes=peer.notes)
        self.assertEqual(self.judge(component.judge_peer(later)), Pass())
        for _ in range(2):
            verdict = self.judge(component.judge_sender(self.envelope(peer=later)))
            self.assertEqual([one.score for one in verdict.findings], [3.0])
        self.assertEqual(len(self.resolver.asked), count)

    def test_nobody_asks_about_log_ins_networks_of_our_own_and_accepted_ones(self) -> None:
        component = self.built(exempt=["8.4.0.0/16"])
        for address, facts in (
            ("127.0.0.1", {}), ("::1", {}), ("10.1.2.3", {}), ("192.168.1.1", {}), ("fe80::1%eth0", {}), ("fd00::1", {}),
            ("unix", {}), ("local", {}), ("proxy:8.4.4.8", {}), (V4, {}), ("9.9.9.9", {"login": "user"}),
            ("9.9.9.9", {"service": "submission"}),
        ):  # fmt: skip
            facts = dict(facts)
            self.assertEqual(self.judge(component.judge_peer(self.peer(address, hello="", **facts))), Pass())
            self.assertEqual(self.judge(component.judge_sender(self.envelope(peer=self.peer(address, **facts)))), Pass())
        accepted = Envelope(
            "1", self.peer("9.9.9.9"), None, (), 0.0, findings=(Finding("accepted", 0.0, "a friend", source="lists"),)
        )
        self.assertEqual(self.judge(component.judge_sender(accepted)), Pass())
        self.assertEqual(self.resolver.asked, [])

    def test_who_logs_in_later_is_not_judged_by_the_address(self) -> None:
        self.record(f"8.4.4.8.{BL}", "127.0.0.2")
        component = self.built(verdict="refuse")
        peer = self.peer(V4, hello="")
        self.met(component, peer)
        later = Peer(V4, 1, "mx", "client.example.net", "EHLO", login="user", notes=peer.notes)
        self.assertEqual(self.judge(component.judge_sender(self.envelope(peer=later))), Pass())


class Misbehaviour(Lists):
    def test_lists_that_do_not_do_what_they_should_hold_nobody(self) -> None:
        """What the zone answers for: the peer, 127.0.0.2, 127.0.0.1; what is found; what is told."""
        for peer, listed, unlisted, result, told in (
            (["127.0.0.2"], ["127.0.0.2"], [], "fail", ""),
            (["127.0.0.2"], [], [], "fail", "test point for IPv4"),  # not as it should be, but it knows the peer
            ([], [], [], None, "test point for IPv4"),
            (["127.0.0.2"], ["127.0.0.2"], ["127.0.0.2"], None, "lists everything"),
            (["192.0.2.80"], ["192.0.2.80"], ["192.0.2.80"], None, "no codes"),
            (["192.0.2.80"], ["127.0.0.2"], [], "permerror", "no codes"),
            (["127.255.255.254"], ["127.255.255.254"], ["127.255.255.254"], None, "refuses"),
            (["127.255.255.255"], ["127.0.0.2"], [], "permerror", "refuses"),
            (["127.0.0.1"], ["127.0.0.2"], [], "permerror", "refuses"),
            (["127.0.0.2", "127.255.255.252"], ["127.0.0.2"], [], "permerror", "refuses"),
        ):
            self.resolver.zones.clear()
            for name, codes in (("8.4.4.8", peer), ("2.0.0.127", listed), ("1.0.0.127", unlisted)):
                self.record(f"{name}.{BL}", *codes)
            component = self.built({"zone": BL, "score": 3, "about": ["ipv4"]})
            with capturedLogs() as events:
                said = [(one[1], one[3]) for one in self.said(component)]
            self.assertEqual(said, [] if result is None else [(result, 3.0 if result == "fail" else 0.0)], (peer, listed))
            words = " ".join([event["fault"] for event in events if event.get("list") == BL])
            self.assertIn(told, words)
            self.assertEqual(bool(told), bool(words), words)

    def test_a_list_is_looked_at_only_where_it_is_asked(self) -> None:
        v4, v6, domains = {f"{n}.0.0.127.{BL}" for n in (1, 2)}, {f"{V6_TEST}.{BL}", f"1{V6_TEST[1:]}.{BL}"}, {f"{one}.{BL}" for one in ("test", "invalid")}
        self.record(f"test.{BL}", "127.0.0.2")
        for about, points in ((["ipv4"], v4), (["ipv6"], v6), (["hello"], domains), (["sender", "ipv6"], domains | v6)):
            self.resolver.asked.clear()
            self.answer(self.built({"zone": BL, "score": 3, "about": about}).run_periodically())
            self.assertEqual({name for name, _ in self.resolver.asked}, points, about)

    def test_a_list_that_is_dead_or_silent_is_a_finding_and_the_others_count(self) -> None:
        self.record(f"8.4.4.8.{BL}", "127.0.0.2")
        component = self.built({"zone": WL, "score": 1}, {"zone": BL, "score": 3}, verdict="refuse", wait="3s")
        self.resolver.failing |= {f"1.0.0.127.{WL}", f"8.4.4.8.{WL}"}
        verdict = self.judge(component.judge_sender(self.envelope(peer=self.peer(V4))))
        self.assertRefused(verdict, BL)
        self.assertEqual([one.properties["result"] for one in verdict.findings], ["temperror", "fail"])
        self.resolver.failing.clear()
        self.resolver.silent.add(f"8.4.4.8.{WL}")
        waiting = self.begin(component.judge_sender(self.envelope(peer=self.peer(V4))))
        self.assertNoResult(waiting)
        self.clock.advance(3)
        verdict = self.judge(waiting)
        self.assertEqual([one.properties["result"] for one in verdict.findings], ["temperror", "fail"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_answers_in_time_is_waited_for_and_no_timer_is_left(self) -> None:
        self.record(f"8.4.4.8.{BL}", "127.0.0.2")
        self.resolver.silent.add(f"8.4.4.8.{BL}")
        component = self.built()
        waiting = self.begin(component.judge_peer(self.peer(V4, hello="")))
        self.clock.advance(1)
        self.resolver.answer_silent()
        self.assertEqual([one.score for one in self.judge(waiting).notes["answers"]], [3.0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_judgement_that_is_called_off_leaves_no_timer(self) -> None:
        self.resolver.silent.add(f"8.4.4.8.{BL}")
        waiting = self.begin(self.built().judge_peer(self.peer(V4, hello="")))
        waiting.cancel()
        self.answer(waiting.addErrback(lambda _: None))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_refuses_is_left_alone_for_an_hour_and_told_once_a_day(self) -> None:
        self.record(f"8.4.4.8.{BL}", "127.255.255.255")
        component = self.built({"zone": BL, "score": 3, "about": ["ipv4"]})
        with capturedLogs() as events:
            self.assertEqual(self.said(component)[0][1], "permerror")
            count = len(self.resolver.asked)
            self.assertEqual(self.said(component), [])
            self.assertEqual(len(self.resolver.asked), count)
            self.clock.advance(REST_SECONDS)
            self.assertEqual(self.said(component)[0][1], "permerror")
            self.assertEqual(len([event for event in events if event.get("list") == BL]), 1)
            self.clock.advance(DAY_SECONDS)
            self.assertEqual(self.said(component)[0][1], "permerror")
            self.assertEqual(len([event for event in events if event.get("list") == BL]), 2)
            self.record(f"8.4.4.8.{BL}", "127.0.0.2")
            self.clock.advance(REST_SECONDS)
            self.assertEqual(self.said(component)[0][1], "fail")

    def test_one_that_lists_everything_counts_again_only_after_another_look(self) -> None:
        self.record(f"8.4.4.8.{BL}", "127.0.0.2")
        component = self.built()
        self.record(f"1.0.0.127.{BL}", "127.0.0.2")
        with capturedLogs():
            self.answer(component.run_periodically())
            count = len(self.resolver.asked)
            self.clock.advance(DAY_SECONDS - 1)
            self.assertEqual(self.said(component), [])
            self.assertEqual(len(self.resolver.asked), count)
            self.clock.advance(2)
            self.assertEqual(self.said(component), [])
            self.clock.advance(DAY_SECONDS + 1)
            self.resolver.zones.pop(f"1.0.0.127.{BL}")
            self.assertEqual(self.said(component)[0][1], "fail")

    def test_a_list_that_the_daily_look_finds_sound_counts_again_at_once(self) -> None:
        self.record(f"8.4.4.8.{BL}", "127.255.255.255")
        component = self.built()
        with capturedLogs():
            self.said(component)
        self.record(f"8.4.4.8.{BL}", "127.0.0.2")
        self.assertEqual(self.said(component), [])
        self.answer(component.run_periodically())
        self.assertEqual(self.said(component)[0][1], "fail")

    def test_the_daily_look_takes_all_lists_and_says_that_one_could_not_be_asked(self) -> None:
        component = self.built({"zone": BL, "score": 3}, {"zone": WL, "score": -1})
        self.resolver.failing.add(f"1.0.0.127.{BL}")
        with self.assertRaises(LookupFailed):
            self.answer(component.run_periodically())
        self.assertIn((f"2.0.0.127.{WL}", "A"), self.resolver.asked)
        self.assertIn((f"{V6_TEST}.{WL}", "A"), self.resolver.asked)
        self.resolver.failing.clear()
        self.answer(component.run_periodically())


class DNSListsKeepTheContract(FilterContract, FilterCase):
    def make(self) -> Any:
        return self.build(factory, list=[{"zone": BL, "score": 3, "about": ["ipv4", "ipv6", "hello", "sender"]}])


class OverSMTP(MailCase):
    TABLE = f"""
[[filter]]
use = "dnsbl"
verdict = "refuse"
[[filter.list]]
zone = "{BL}"
score = 3
"""

    def test_a_listed_peer_is_refused_at_mail_and_asked_about_once(self) -> None:
        self.resolver.zones[f"8.4.4.8.{BL}"] = {"A": ["127.0.0.2"]}
        self.serve(self.TABLE)
        with capturedLogs():  # of the missing test point
            dialogue = self.connect(V4)
        for _ in range(2):
            self.assertEqual(dialogue.say("MAIL FROM:<x@example.net>").code, 550)
        self.assertEqual(self.resolver.asked.count((f"8.4.4.8.{BL}", "A")), 1)
        self.assertEqual(self.send(address="8.8.4.5").code, 250)
        dialogue = self.connect(V4, service="submission", login="alice@example.org")
        self.assertEqual(dialogue.say("MAIL FROM:<alice@example.org>").code, 250)

    def test_the_page_shows_a_table_that_loads(self) -> None:
        [page] = [block for block in blocks(page_text("filters.md"), "toml") if '"dnsbl"' in block]
        self.serve(page)
        self.assertEqual(len(self.component("dnsbl")._lists), 3)
