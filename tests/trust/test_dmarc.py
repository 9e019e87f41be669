"""DMARC: records, the walk up the tree, policies and alignment (RFC 9989), over many zones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import given
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.headers import Headers
from mailserver.testing.resolver import FakeResolver
from mailserver.trust.authors import TooManyAuthors, author_domains
from mailserver.trust.dmarc import DMARCResult, Evidence, evaluate
from mailserver.trust.dmarc_record import DMARCRecord, find_record, parse_record
from tests.any_octets import any_octets

A = {"A": ["192.0.2.1"]}


def resolver_of(zones: Mapping[str, str | Sequence[str]], names: Sequence[str] = ()) -> FakeResolver:
    """`zones`: the records at ``_dmarc.`` each domain.  `names` exist."""
    found: dict[str, Any] = dict.fromkeys(names, A)
    for domain, records in zones.items():
        found[f"_dmarc.{domain}"] = {"TXT": [records] if isinstance(records, str) else list(records)}
    return FakeResolver(found)


def judge(resolver: FakeResolver, author: str, *evidence: str) -> DMARCResult:
    """`evidence` is ``"dkim example.org pass"``."""
    seen: list[Any] = []
    given_ = [Evidence(*one.split(" ")) for one in evidence]
    Deferred.fromCoroutine(evaluate(resolver.query, author, given_)).addBoth(seen.append)
    [found] = seen
    if not isinstance(found, DMARCResult):
        found.raiseException()
    return found  # type: ignore[no-any-return]


ORG = {"example.org": "v=DMARC1; p=reject"}
PSD = {"bank": "v=DMARC1; p=reject; psd=y; np=quarantine"}
DEEP = "a.b.c.d.e.f.g.h.i.j.mail.example.org"
# zones, names that exist, author, evidence, (result, policy, aligned)
ZONES: tuple[tuple[Mapping[str, str | Sequence[str]], Sequence[str], str, Sequence[str], tuple[str, str, str]], ...] = (
    # Who takes no part.
    ({}, (), "example.org", (), ("none", "none", "")),
    ({}, (), "example.org", ("dkim example.org pass",), ("none", "none", "")),
    ({"example.org": "v=spf1 -all"}, (), "example.org", (), ("none", "none", "")),
    ({"example.org": ["v=DMARC1; p=reject", "v=DMARC1; p=none"]}, (), "example.org", (), ("none", "none", "")),
    ({"example.org": ["v=DMARC1; p=reject", "something else"]}, (), "example.org", (), ("fail", "reject", "")),
    ({"example.org": "p=reject; v=DMARC1"}, (), "example.org", (), ("none", "none", "")),
    ({"example.org": " v=DMARC1; p=reject"}, (), "example.org", (), ("none", "none", "")),
    ({"example.org": "V=DMARC1; P=reject"}, (), "example.org", (), ("fail", "reject", "")),
    ({"example.org": "v=dmarc1; p=reject"}, (), "example.org", (), ("none", "none", "")),
    ({"example.org": "v=DMARC1"}, (), "example.org", (), ("none", "none", "")),
    ({"example.org": "v=DMARC1; p=refuse"}, (), "example.org", (), ("none", "none", "")),
    ({"example.org": "v=DMARC1; p=reject; sp=refuse"}, (), "example.org", (), ("none", "none", "")),
    ({"example.org": "v=DMARC1; p=reject; np=refuse"}, (), "example.org", (), ("none", "none", "")),
    # Without a valid policy, but with reports.
    ({"example.org": "v=DMARC1; rua=mailto:d@example.org"}, (), "example.org", (), ("fail", "none", "")),
    ({"example.org": "v=DMARC1; p=refuse; rua=mailto:d@example.org"}, (), "example.org", (), ("fail", "none", "")),
    ({"example.org": "v=DMARC1; p=refuse; rua=nobody"}, (), "example.org", (), ("none", "none", "")),
    # The domain's own policy.
    (ORG, (), "example.org", (), ("fail", "reject", "")),
    ({"example.org": "v=DMARC1; p=quarantine"}, (), "example.org", (), ("fail", "quarantine", "")),
    ({"example.org": "v=DMARC1; p=none"}, (), "example.org", (), ("fail", "none", "")),
    ({"example.org": "v = DMARC1 ;p = REJECT ; "}, (), "example.org", (), ("fail", "reject", "")),
    ({"example.org": "v=DMARC1; p=reject; pct=0"}, (), "example.org", (), ("fail", "reject", "")),
    ({"example.org": "v=DMARC1; p=reject; nonsense; x=1; =; p=none"}, (), "example.org", (), ("fail", "reject", "")),
    ({"example.org": "v=DMARC1; p=reject; sp=none; np=none"}, (), "example.org", (), ("fail", "reject", "")),
    # t=y is one step milder.
    ({"example.org": "v=DMARC1; p=reject; t=y"}, (), "example.org", (), ("fail", "quarantine", "")),
    ({"example.org": "v=DMARC1; p=quarantine; t=y"}, (), "example.org", (), ("fail", "none", "")),
    ({"example.org": "v=DMARC1; p=none; t=y"}, (), "example.org", (), ("fail", "none", "")),
    ({"example.org": "v=DMARC1; p=reject; t=n"}, (), "example.org", (), ("fail", "reject", "")),
    # Evidence.
    (ORG, (), "example.org", ("spf example.org pass",), ("pass", "reject", "spf")),
    (ORG, (), "example.org", ("dkim example.org pass",), ("pass", "reject", "dkim")),
    (ORG, (), "example.org", ("dkim example.org pass", "spf example.org pass"), ("pass", "reject", "spf dkim")),
    (ORG, (), "example.org", ("dkim example.org fail", "spf example.org softfail"), ("fail", "reject", "")),
    (ORG, (), "example.org", ("dkim EXAMPLE.org. pass",), ("pass", "reject", "dkim")),
    (ORG, (), "example.org", ("dkim evil.example pass", "spf evil.example pass"), ("fail", "reject", "")),
    (ORG, (), "example.org", ("dkim other.org pass",), ("fail", "reject", "")),
    (ORG, (), "example.org", ("dkim badexample.org pass",), ("fail", "reject", "")),
    (ORG, (), "example.org", ("dkim org pass",), ("fail", "reject", "")),
    (ORG, (), "example.org", ("dkim  pass",), ("fail", "reject", "")),
    # Relaxed alignment, both ways.
    (ORG, (), "example.org", ("dkim mail.example.org pass",), ("pass", "reject", "dkim")),
    (ORG, ("news.example.org",), "news.example.org", ("dkim example.org pass",), ("pass", "reject", "dkim")),
    (ORG, ("news.example.org",), "news.example.org", ("spf bounce.example.org pass",), ("pass", "reject", "spf")),
    # Strict alignment, each for itself.
    ({"example.org": "v=DMARC1; p=reject; adkim=s"}, (), "example.org", ("dkim mail.example.org pass",), ("fail", "reject", "")),
    ({"example.org": "v=DMARC1; p=reject; adkim=s"}, (), "example.org", ("dkim example.org pass",), ("pass", "reject", "dkim")),
    ({"example.org": "v=DMARC1; p=reject; adkim=s"}, (), "example.org", ("spf b.example.org pass",), ("pass", "reject", "spf")),
    ({"example.org": "v=DMARC1; p=reject; aspf=s"}, (), "example.org", ("spf b.example.org pass",), ("fail", "reject", "")),
    ({"example.org": "v=DMARC1; p=reject; aspf=s"}, (), "example.org", ("dkim b.example.org pass",), ("pass", "reject", "dkim")),
    # Names below: sp= and np=.
    ({"example.org": "v=DMARC1; p=reject; sp=none"}, ("a.example.org",), "a.example.org", (), ("fail", "none", "")),
    ({"example.org": "v=DMARC1; p=none; sp=reject"}, ("a.example.org",), "a.example.org", (), ("fail", "reject", "")),
    ({"example.org": "v=DMARC1; p=none; np=reject"}, (), "a.example.org", (), ("fail", "reject", "")),
    ({"example.org": "v=DMARC1; p=none; np=reject"}, ("a.example.org",), "a.example.org", (), ("fail", "none", "")),
    ({"example.org": "v=DMARC1; p=none; sp=quarantine; np=reject"}, ("a.example.org",), "a.example.org", (), ("fail", "quarantine", "")),
    ({"example.org": "v=DMARC1; p=none; sp=quarantine"}, (), "a.example.org", (), ("fail", "quarantine", "")),
    ({"example.org": "v=DMARC1; p=none; sp=reject; t=y"}, ("a.example.org",), "a.example.org", (), ("fail", "quarantine", "")),
    (
        {"example.org": "v=DMARC1; p=reject", "a.example.org": "v=DMARC1; p=none; sp=quarantine"},
        (),
        "a.example.org",
        (),
        ("fail", "none", ""),
    ),
    # The organization is the topmost record, not the nearest.
    (
        {"example.org": "v=DMARC1; p=reject", "b.example.org": "v=DMARC1; p=none; sp=none"},
        ("a.b.example.org",),
        "a.b.example.org",
        ("dkim c.example.org fail",),
        ("fail", "reject", ""),
    ),
    (
        {"example.org": "v=DMARC1; p=reject", "b.example.org": "v=DMARC1; p=none"},
        (),
        "b.example.org",
        ("dkim c.example.org pass",),
        ("pass", "none", "dkim"),
    ),
    # psd=n: an organization of its own below another.
    (
        {"example.org": "v=DMARC1; p=reject", "b.example.org": "v=DMARC1; p=quarantine; psd=n"},
        (),
        "b.example.org",
        ("dkim c.example.org pass",),
        ("fail", "quarantine", ""),
    ),
    (
        {"example.org": "v=DMARC1; p=reject", "b.example.org": "v=DMARC1; p=quarantine; psd=n"},
        ("x.b.example.org",),
        "x.b.example.org",
        ("dkim y.b.example.org pass",),
        ("pass", "quarantine", "dkim"),
    ),
    # psd=y: what stands below it are different organizations.
    (PSD, ("my.bank",), "my.bank", (), ("fail", "reject", "")),
    (PSD, (), "my.bank", (), ("fail", "quarantine", "")),
    (PSD, ("my.bank",), "my.bank", ("dkim your.bank pass",), ("fail", "reject", "")),
    (PSD, ("my.bank",), "my.bank", ("dkim mail.my.bank pass",), ("pass", "reject", "dkim")),
    ({**PSD, "my.bank": "v=DMARC1; p=none"}, (), "my.bank", (), ("fail", "none", "")),
    ({**PSD, "my.bank": "v=DMARC1; p=none"}, ("a.my.bank",), "a.my.bank", ("spf b.my.bank pass",), ("pass", "none", "spf")),
    (PSD, (), "bank", (), ("fail", "reject", "")),
    # Long names: seven labels from the right after the first query.
    ({**ORG, DEEP: "v=DMARC1; p=none"}, (), DEEP, (), ("fail", "none", "")),
    (ORG, (DEEP,), DEEP, (), ("fail", "reject", "")),
    ({"f.g.h.i.j.mail.example.org": "v=DMARC1; p=none; sp=none", **ORG}, (DEEP,), DEEP, (), ("fail", "reject", "")),
    ({"f.g.h.i.j.mail.example.org": "v=DMARC1; p=none"}, (DEEP,), DEEP, (), ("none", "none", "")),
    ({"h.i.j.mail.example.org": "v=DMARC1; p=quarantine"}, (DEEP,), DEEP, (), ("fail", "quarantine", "")),
    # What is temporary.
    (ORG, (), "example.org", ("dkim example.org temperror",), ("temperror", "reject", "")),
    (ORG, (), "example.org", ("spf mail.example.org temperror",), ("temperror", "reject", "")),
    (ORG, (), "example.org", ("spf evil.example temperror",), ("fail", "reject", "")),
    (ORG, (), "example.org", ("spf example.org temperror", "dkim example.org pass"), ("pass", "reject", "dkim")),
    (ORG, (), "example.org", ("dkim example.org permerror",), ("fail", "reject", "")),
)


# What checkdmarc 6.0.4 has found, asked over a name server: the zones above, and 120 that chance has made.
CHECKDMARC = Path(__file__).with_name("checkdmarc_answers.json")
# It looks for mistakes; a receiver reads what is there.
OTHERWISE = {
    "v=DMARC1": None,  # it takes p=none for granted; without a policy and an address for reports there is nothing (section 4.7)
    "v=DMARC1; p=refuse; rua=mailto:d@example.org": "example.org",  # an unknown policy is none (section 4.7)
    "v=DMARC1; p=reject; nonsense; x=1; =; p=none": "example.org",  # what is no tag is passed over (section 4.7)
    ("v=DMARC1; p=reject", "something else"): "example.org",  # what is no record is passed over (section 4.10)
}


class Zones(SynchronousTestCase):
    def test_the_policy_is_found_where_another_program_finds_it_and_says_the_same(self) -> None:
        rows = json.loads(CHECKDMARC.read_text())
        seen = set()
        for row in rows:
            record = judge(resolver_of(row["zones"], row["names"]), row["author"]).record
            found = None if record is None else record.domain
            text = row["zones"].get("example.org")
            text = tuple(text) if isinstance(text, list) else text
            if text in OTHERWISE and len(row["zones"]) == 1:
                seen.add(text)
                self.assertEqual(found, OTHERWISE[text], row)
                continue
            self.assertEqual(found, row["answer"].get("location"), row)
            if record is not None and record.valid:
                tags = {name: value.lower() for name, value in row["answer"]["tags"].items()}
                below = f"x.{record.domain}"
                ours = {"p": record.policy, "psd": record.psd}
                ours |= {"sp": record.policy_for(below, exists=True), "np": record.policy_for(below, exists=False)}
                ours |= {"adkim": "s" if record.strict_dkim else "r", "aspf": "s" if record.strict_spf else "r"}
                ours |= {"t": "y" if record.testing else "n"}
                self.assertEqual(ours, {name: tags[name] for name in ours}, row)
        self.assertEqual(seen, set(OTHERWISE))
        self.assertGreater(len(rows), 160)

    def test_each_zone_comes_to_its_result(self) -> None:
        wrong = []
        for zones, names, author, evidence, expected in ZONES:
            found = judge(resolver_of(zones, names), author, *evidence)
            if (found.result, found.policy, found.aligned) != expected:
                wrong.append((zones, author, evidence, expected, found))
        self.assertEqual(wrong, [])
        self.assertGreater(len(ZONES), 60)

    def test_eight_names_are_asked_for_and_each_once(self) -> None:
        resolver = resolver_of({})
        judge(resolver, DEEP, "dkim x.example.org pass")
        walked = ["a.b.c.d.e.f.g.h.i.j.mail", "g.h.i.j.mail", "h.i.j.mail", "i.j.mail", "j.mail", "mail"]
        names = [f"_dmarc.{one}.example.org" for one in walked] + ["_dmarc.example.org", "_dmarc.org"]
        self.assertEqual(resolver.asked, [(name, "TXT") for name in names])

    def test_what_cannot_align_is_not_asked_about(self) -> None:
        resolver = resolver_of(ORG)
        judge(resolver, "example.org", "dkim evil.example pass", "spf example.org pass")
        self.assertEqual(resolver.asked, [("_dmarc.example.org", "TXT"), ("_dmarc.org", "TXT")])

    def test_a_strangers_dns_that_fails_does_not_make_a_failure_uncertain(self) -> None:
        resolver = resolver_of(ORG)
        resolver.failing = {"_dmarc.a.evil.org", "_dmarc.evil.org", "evil.org"}
        for evidence in ("dkim a.evil.org pass", "dkim a.evil.org temperror", "spf evil.org pass", "spf evil.org temperror"):
            self.assertEqual(judge(resolver, "example.org", evidence).result, "fail", evidence)
        self.assertFalse([name for name, _ in resolver.asked if "evil" in name])

    def test_a_dns_that_cannot_tell_the_policy(self) -> None:
        resolver = resolver_of(ORG)
        for failing in ("_dmarc.a.example.org", "_dmarc.example.org"):
            resolver.failing = {failing}
            found = judge(resolver, "a.example.org", "dkim a.example.org pass")
            self.assertEqual((found.result, found.policy), ("temperror", ""))

    def test_a_dns_that_cannot_tell_the_organization_is_no_failure(self) -> None:
        resolver = resolver_of(ORG)
        resolver.failing = {"_dmarc.mail.example.org"}
        self.assertEqual(judge(resolver, "example.org", "dkim mail.example.org pass").result, "temperror")
        self.assertEqual(judge(resolver, "example.org", "dkim mail.example.org pass", "spf example.org pass").result, "pass")

    def test_a_dns_that_cannot_tell_whether_the_name_exists_is_no_failure(self) -> None:
        resolver = resolver_of({"example.org": "v=DMARC1; p=none; np=reject"})
        resolver.failing = {"a.example.org"}
        found = judge(resolver, "a.example.org")
        self.assertEqual((found.result, found.policy, found.published), ("temperror", "none", "none"), "the milder one is taken")
        self.assertEqual(judge(resolver, "a.example.org", "dkim example.org pass").result, "pass")


class Records(SynchronousTestCase):
    def test_all_tags(self) -> None:
        text = b"v=DMARC1; p=reject; sp=quarantine; np=none; adkim=s; aspf=s; psd=n; t=y; rua=mailto:a@example.org, https://x/,no"
        self.assertEqual(
            parse_record("example.org", text),
            DMARCRecord("example.org", "reject", "quarantine", "none", True, True, "n", True, ("mailto:a@example.org", "https://x/")),
        )

    def test_the_terms_of_a_record_are_a_record_that_says_the_same(self) -> None:
        for text in ("p=reject; sp=none; np=quarantine; adkim=s; aspf=s; t=y; psd=n", "p=none", "p=reject; psd=y"):
            record = parse_record("example.org", f"v=DMARC1; {text}".encode())
            assert record is not None
            self.assertEqual(parse_record("example.org", record.terms.encode()), record)
        odd = parse_record("example.org", b"v=DMARC1; p=refuse; rua=mailto:a@example.org")
        assert odd is not None
        self.assertEqual(odd.terms, "v=DMARC1; p=none; adkim=r; aspf=r; t=n")

    @given(any_octets(max_size=60), any_octets(max_size=30))
    def test_any_octets_are_a_record_or_none(self, octets: bytes, more: bytes) -> None:
        for text in (octets, b"v=DMARC1;" + octets, b"v=DMARC1; p=reject; " + octets + b";" + more):
            record = parse_record("example.org", text)
            if record is not None:
                self.assertIn(record.policy_for("a.example.org", exists=True), ("none", "quarantine", "reject"))
        find_record("example.org", [octets, more])


class Authors(SynchronousTestCase):
    def of(self, *fields: str) -> tuple[str, ...]:
        return author_domains(Headers.parse("".join(f"{one}\r\n" for one in fields).encode()))

    def test_one_author(self) -> None:
        self.assertEqual(self.of("From: Alice <alice@Example.ORG>"), ("example.org",))
        self.assertEqual(self.of("From: alice@example.org."), ("example.org",))
        self.assertEqual(self.of("From: a@b\u00fccher.example"), ("xn--bcher-kva.example",))

    def test_several_authors_of_one_domain_are_one_and_of_several_are_several(self) -> None:
        self.assertEqual(self.of("From: a@example.org, b@example.org"), ("example.org",))
        self.assertEqual(self.of("From: a@example.org, b@evil.example"), ("example.org", "evil.example"))
        self.assertEqual(self.of("From: a@example.org", "From: b@evil.example"), ("example.org", "evil.example"))

    def test_no_author(self) -> None:
        for fields in ((), ("Subject: x",), ("From:",), ("From: nobody",), ("From: a@[192.0.2.1]",), ("From: undisclosed:;",), ("From: a@.",)):
            self.assertEqual(self.of(*fields), (), fields)

    def test_a_name_is_no_author_and_what_cannot_be_understood_names_all(self) -> None:
        self.assertEqual(self.of('From: "boss@bank.example" <x@evil.example>'), ("evil.example",))
        self.assertEqual(self.of("From: boss@bank.example <x@evil.example>")[-1], "evil.example")
        self.assertEqual(self.of("From: boss@bank.example,, <x@evil.example> <"), ("bank.example", "evil.example"))

    def test_blanks_and_comments_around_the_dots_hide_no_domain(self) -> None:
        for text in ("ceo@bank. example", "ceo @ bank . example", "ceo@bank (Inc.) .example", "ceo@bank.\t(x@y)example", "ceo@bank.\r\n example"):
            self.assertIn("bank.example", self.of(f"From: {text}"), text)
        for text in ("ceo@bank.example .evil.example", "ceo@bank.example..", "ceo@.bank.example", "ceo@bank.example\0", "ceo@bank.example\x7f"):
            self.assertIn("bank.example", self.of(f"From: {text}"), text)

    def test_too_many_authors_are_told(self) -> None:
        many = ", ".join(f"a@d{n}.example" for n in range(6))
        for fields in ([f"From: {many}"], ["From: a@example.org"] * 6, ["From: " + "," * 2001 + "a@example.org"]):
            with self.assertRaises(TooManyAuthors):
                self.of(*fields)

    @given(any_octets(max_size=80))
    def test_any_octets_have_authors_or_none_or_too_many(self, octets: bytes) -> None:
        try:
            domains = author_domains(Headers.parse(b"From: " + octets + b"\r\n"))
        except TooManyAuthors:
            return
        self.assertNotIn("", domains)
