"""SPF: the public suite of RFC 7208, all its cases, and what it does not ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.dns_records import Answer, LookupFailed
from mailserver.testing.resolver import FakeResolver
from mailserver.trust.spf import SPFResult, check_host
from mailserver.trust.spf_record import SPFFault, is_record, parse_record

# The suite of openspf.org, release 2014.04, as pyspf 2.0.14 has it, written as JSON; rfc7208_tests.LICENSE is its licence (BSD).
SUITE = Path(__file__).with_name("rfc7208_tests.json")
CASES = 203


class SuiteResolver(FakeResolver):
    """The zones of a scenario: ``TIMEOUT`` for a type or for all, SPF records that stand for TXT."""

    def __init__(self, zonedata: Mapping[str, Sequence[Any]]) -> None:
        self.timeouts: set[tuple[str, str]] = set()
        zones: dict[str, dict[str, list[str]]] = {}
        for name, entries in zonedata.items():
            zones[name.rstrip(".")] = dict(self._records(name.rstrip(".").lower(), entries))
        super().__init__(zones)

    def _records(self, name: str, entries: Sequence[Any]) -> Iterator[tuple[str, list[str]]]:
        found: dict[str, list[str]] = {}
        for entry in entries:
            if entry == "TIMEOUT":
                self.timeouts.add((name, "*"))
                continue
            for kind, value in entry.items():
                if value == "TIMEOUT":
                    self.timeouts.add((name, kind))
                elif value == "NONE":
                    found.setdefault(kind, [])
                elif kind == "MX":
                    found.setdefault(kind, []).append(f"{value[0]} {value[1].rstrip('.').lower() or '.'}")
                else:
                    text = "".join(value) if isinstance(value, list) else value
                    found.setdefault(kind, []).append(text.encode().decode("ascii", "surrogateescape"))
        if "SPF" in found:
            found.setdefault("TXT", found["SPF"])
        yield from found.items()

    def query(self, name: str, record_type: str) -> Deferred[Answer]:
        key = name.rstrip(".").lower()
        has = bool(self.zones.get(key, {}).get(record_type))
        if (key, record_type) in self.timeouts or ((key, "*") in self.timeouts and not has):
            return fail(LookupFailed("time-out"))
        if key not in self.zones and key.startswith("error."):
            return fail(LookupFailed("time-out"))
        return super().query(name, record_type)


def check(resolver: FakeResolver, host: str, sender: str, hello: str) -> SPFResult:
    domain = sender.rpartition("@")[2] if sender else hello
    sender = sender or f"postmaster@{hello}"
    seen: list[Any] = []
    Deferred.fromCoroutine(check_host(resolver.query, ip_address(host), domain, sender, hello)).addBoth(seen.append)
    [found] = seen
    if not isinstance(found, SPFResult):
        found.raiseException()
    return found  # type: ignore[no-any-return]


class PublicSuite(SynchronousTestCase):
    def test_every_case_has_one_of_the_results_that_the_suite_allows(self) -> None:
        wrong, cases, preferred = [], 0, 0
        for scenario in json.loads(SUITE.read_text()):
            for name, case in scenario["tests"].items():
                cases += 1
                allowed = case["result"] if isinstance(case["result"], list) else [case["result"]]
                found = check(SuiteResolver(scenario["zonedata"]), case["host"], case["mailfrom"], case["helo"])
                preferred += found.result == allowed[0]
                if found.result not in allowed:
                    wrong.append((scenario["description"], name, case["spec"], allowed, found))
        self.assertEqual(wrong, [])
        self.assertEqual(cases, CASES)


ORG = "example.org"
MACROS = r"%\{[slodiphvSLODIPHV](?:[1-9][0-9]?)?r?[.\-+,/_=]{0,3}\}"


class Limits(SynchronousTestCase):
    def result(self, zones: Mapping[str, Any], **how: Any) -> SPFResult:
        failing = how.pop("failing", ())
        self.resolver = FakeResolver({name: {"TXT": [text]} if isinstance(text, str) else text for name, text in zones.items()})
        self.resolver.failing.update(failing)
        return check(self.resolver, how.get("host", "192.0.2.1"), how.get("sender", f"a@{ORG}"), how.get("hello", f"mx.{ORG}"))

    def test_ten_terms_may_ask_and_an_eleventh_is_a_permerror(self) -> None:
        names = {f"n{n}.{ORG}": {"A": ["198.51.100.1"]} for n in range(11)}
        ten = " ".join(f"a:n{n}.{ORG}" for n in range(10))
        self.assertEqual(self.result({**names, ORG: f"v=spf1 {ten} -all"}).result, "fail")
        found = self.result({**names, ORG: f"v=spf1 {ten} a:n10.{ORG} -all"})
        self.assertEqual((found.result, found.reason), ("permerror", "more than 10 terms ask the DNS"))
        self.assertLess(len(self.resolver.asked), 12)

    def test_a_record_that_includes_itself_ends(self) -> None:
        self.assertEqual(self.result({ORG: f"v=spf1 include:{ORG} -all"}).result, "permerror")
        self.assertEqual(self.result({ORG: f"v=spf1 redirect={ORG}"}).result, "permerror")

    def test_two_names_may_be_missing_and_a_third_is_a_permerror(self) -> None:
        self.assertEqual(self.result({ORG: f"v=spf1 a:x.{ORG} exists:y.{ORG} -all"}).result, "fail")
        self.assertEqual(self.result({ORG: f"v=spf1 a:x.{ORG} exists:y.{ORG} mx:z.{ORG} -all"}).result, "permerror")

    def test_a_peer_cannot_spoil_a_fail_with_names_of_its_own_that_do_not_exist(self) -> None:
        names = {"1.2.0.192.in-addr.arpa": {"PTR": [f"n{n}.evil.example" for n in range(30)]}}
        self.assertEqual(self.result({**names, ORG: "v=spf1 ptr -all"}).result, "fail")
        self.assertEqual(len(self.resolver.asked), 12)  # the record, the PTR, ten names

    def test_eleven_mail_exchangers_are_a_permerror(self) -> None:
        many = {"TXT": ["v=spf1 mx -all"], "MX": [f"{n} mx{n}.{ORG}" for n in range(11)]}
        self.assertEqual(self.result({ORG: many}).result, "permerror")
        self.assertEqual(len(self.resolver.asked), 2)

    def test_thousands_of_addresses_and_records_of_any_length_hold_up_nobody(self) -> None:
        many = {"A": [f"10.0.{n >> 8}.{n & 255}" for n in range(1001)]}
        zones = {f"mx{n}.{ORG}": many for n in range(3)}
        two = {"TXT": ["v=spf1 mx -all"], "MX": [f"{n} mx{n}.{ORG}" for n in range(2)]}
        three = {**two, "MX": [f"{n} mx{n}.{ORG}" for n in range(3)]}
        for apex in (two, three):
            self.assertEqual(self.result({**zones, ORG: apex}).reason, "its names have more than 2000 addresses")
        self.assertEqual(self.result({f"mx0.{ORG}": many, ORG: {**two, "MX": [f"0 mx0.{ORG}"]}}).result, "fail")
        long = "v=spf1" + " ip4:10.0.0.1" * 700 + " -all"
        self.assertEqual(self.result({ORG: long}).reason, f"the record of {ORG} is longer than 8192 octets")

    def test_a_dns_that_cannot_tell_is_temporary_wherever_it_is(self) -> None:
        for record in (f"v=spf1 a:n.{ORG} -all", f"v=spf1 include:n.{ORG} -all", f"v=spf1 redirect=n.{ORG}", f"v=spf1 mx:n.{ORG} -all"):
            self.assertEqual(self.result({ORG: record}, failing=[f"n.{ORG}"]).result, "temperror", record)
        self.assertEqual(self.result({}, failing=[ORG]).result, "temperror")
        self.assertEqual(self.result({ORG: "v=spf1 ptr -all"}, failing=["1.2.0.192.in-addr.arpa"]).result, "fail")

    def test_of_what_is_no_domain_nobody_asks(self) -> None:
        name = ".".join(["a" * 61] * 4)[: 253 - len(ORG) - 1] + f".{ORG}"
        self.assertEqual((len(name), self.result({name: "v=spf1 -all"}, sender=f"x@{name}").result), (253, "fail"))
        for domain in ("localhost", "", "a..example.org", ".example.org", f"{'a' * 64}.{ORG}", "\u00e9" * 32 + f".{ORG}", f"b{name}"):
            found = self.result({domain: "v=spf1 -all"}, sender=f"x@{domain}")
            self.assertEqual((found.result, found.reason, self.resolver.asked), ("none", "no name of a domain", []), domain)

    def test_explanations_are_not_fetched(self) -> None:
        self.assertEqual(self.result({ORG: f"v=spf1 -all exp=why.{ORG}"}).result, "fail")
        self.assertEqual(self.resolver.asked, [(ORG, "TXT")])

    def test_two_records_are_a_permerror_and_other_texts_are_none(self) -> None:
        self.assertEqual(self.result({ORG: {"TXT": ["v=spf1 -all", "v=spf1 +all"]}}).result, "permerror")
        self.assertEqual(self.result({ORG: {"TXT": ["v=spf10 -all", "hello"]}}).result, "none")

    def test_an_address_that_is_mapped_into_ipv6_is_ipv4(self) -> None:
        self.assertEqual(self.result({ORG: "v=spf1 ip4:192.0.2.0/24 -all"}, host="::ffff:192.0.2.1").result, "pass")

    @given(st.text(st.sampled_from("aimxptrldi%{}:/=.-+~? 0123456789_;v") | st.characters(), max_size=40))
    def test_a_record_of_any_text_is_read_or_a_fault(self, text: str) -> None:
        octets = b"v=spf1 " + text.encode("utf-8", "surrogatepass")
        self.assertTrue(is_record(octets))
        try:
            record = parse_record(octets)
        except SPFFault:
            return
        for term in record.terms:
            self.assertIn(term.result, {"pass", "fail", "neutral", "softfail"})

    @given(st.lists(st.from_regex(MACROS, fullmatch=True), max_size=5).map("x".join), st.text(max_size=8), st.text(max_size=8))
    def test_any_macros_and_senders_come_to_a_result(self, spec: str, local: str, hello: str) -> None:
        found = self.result({ORG: f"v=spf1 exists:{spec}.{ORG} a:%{{l}}.{spec}.x.{ORG} -all"}, sender=f"{local}@{ORG}", hello=hello)
        self.assertEqual((found.result, found.reason), ("fail", ""))

    @given(st.text(st.sampled_from("sloidphvSLODr123.-+,/_=%{}a"), max_size=30))
    def test_what_is_like_a_macro_is_one_or_a_fault(self, spec: str) -> None:
        found = self.result({ORG: f"v=spf1 exists:%{{{spec}}}.{ORG} a:{spec}.x.{ORG} -all"})
        self.assertIn(found.result, {"fail", "permerror"})


class Macros(SynchronousTestCase):
    """RFC 7208 section 7.4."""

    def asked(self, spec: str, host: str = "192.0.2.3", hello: str = "mx.example.org") -> str:
        domain = "email.example.com"
        resolver = FakeResolver({domain: {"TXT": [f"v=spf1 exists:{spec} -all"]}, "3.2.0.192.in-addr.arpa": {"PTR": ["mx.example.org"]}})
        check(resolver, host, f"strong-bad@{domain}", hello)
        return resolver.asked[-1][0]

    def test_the_examples_of_the_rfc(self) -> None:
        for spec, name in (
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
            ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
            ("%{o}", "email.example.com"), ("%{d4}", "email.example.com"), ("%{d1}", "com"), ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"), ("%{l}.x", "strong-bad.x"), ("%{l-}.x", "strong.bad.x"), ("%{lr}.x", "strong-bad.x"),
        ):  # fmt: skip
            self.assertEqual(self.asked(spec), name, spec)
        nibbles = "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
        self.assertEqual(self.asked("%{ir}.%{v}._spf.%{d2}", "2001:db8::cb01"), f"{nibbles}.ip6._spf.example.com")

    def test_capitals_mean_what_a_url_would_have(self) -> None:
        self.assertEqual(self.asked("%{S}.x"), "strong-bad%40email.example.com.x")
        self.assertEqual(self.asked("%{s}.x"), "strong-bad@email.example.com.x")

    def test_a_name_of_253_octets_is_whole_and_a_longer_one_loses_labels_from_the_left(self) -> None:
        long = ".".join(["a" * 60] * 4)
        self.assertEqual(self.asked("%{h}.%{d}", hello="b.c." + long[: 253 - 22])[0], "b")
        self.assertEqual(self.asked("%{h}.%{d}", hello="b.c." + long[: 253 - 21])[0], "c")
