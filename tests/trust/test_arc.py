"""ARC: the public suite of RFC 8617, all its cases, dkimpy's chains, and octets that are none."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.content import Content
from mailserver.trust.arc import ARCResult, read_chain, trusted_sets, verify_chain
from mailserver.trust.authentication_results import MethodResult, authentication_results
from mailserver.trust.canonical import body_chunks, canonical_field
from mailserver.trust.dkim import body_hashes, header_digest
from mailserver.trust.dkim_key import PrivateKey
from mailserver.trust.dkim_signature import Signature
from mailserver.trust.foreign_results import read_results
from tests.any_octets import any_octets
from tests.requires import require_module
from tests.trust.dkimpy_peer import chain_by_dkimpy, sealed_by_dkimpy

# ValiMail's suite as Mail::DKIM 1.20240923 has it, written as JSON; two names that are there twice have "#2" behind the second.
# arc_test_suite.LICENSE is its licence (MIT).
SUITE = Path(__file__).with_name("arc_test_suite.json")
CASES = 174
# RFC 8301 section 3.1: verifiers must not take rsa-sha1.  The suite is older.
OTHERWISE = {"ams_fields_a_sha1": "fail", "as_fields_a_sha1": "fail"}
NOW = 1_484_000_000


def judge(content: Content, keys: Mapping[str, Any], now: float = NOW) -> ARCResult:
    """`keys`: the records by name; None is a DNS that cannot tell."""
    chain = read_chain(content.headers)
    found = {name: keys.get(name, ()) for name in chain.key_names}
    return verify_chain(chain, content.headers, body_hashes(body_chunks(content), chain.body_forms), found, now=now)


def cases() -> Iterator[tuple[str, Content, Mapping[str, Any], str]]:
    """Name, message, keys, and what is expected."""
    for scenario in json.loads(SUITE.read_text()):
        keys = {name: [text.encode()] for name, text in scenario["txt-records"].items()}
        for name, case in scenario["tests"].items():
            message = Content.of(case["message"].replace("\n", "\r\n").encode())
            # Chains whose last sealer says cv=fail have an empty expectation: what a sealer would write next.
            yield name, message, keys, OTHERWISE.get(name) or case["cv"].strip().lower() or "fail"


class Suite(SynchronousTestCase):
    def test_all_its_cases(self) -> None:
        wrong, count = [], 0
        for name, content, keys, expected in cases():
            count += 1
            found = judge(content, keys)
            if found.result != expected:
                wrong.append(f"{name}: {found.result} ({found.reason}), not {expected}")
        self.assertEqual(wrong, [])
        self.assertEqual(count, CASES)


ED25519 = PrivateKey.generate("ed25519")
KEYS = {domain: PrivateKey.generate("rsa") for domain in ("lists.example", "relay.example", "evil.example")}
RECORDS = {f"s1._domainkey.{domain}": key.record for domain, key in KEYS.items()}
MESSAGE = (
    b"Authentication-Results: lists.example; dmarc=pass header.from=example.org\r\n"
    b"From: ann@example.org\r\nSubject: hello\r\nTo: list@lists.example\r\n\r\nHello.\r\n"
)


def sealed(message: bytes, *sealers: str) -> bytes:
    """With one set more of each, made by dkimpy; each writes first what it has found."""
    require_module("authres")
    for place, domain in enumerate(sealers):
        chain = f"; arc={'pass' if place else 'none'}; dmarc={'fail' if place else 'pass'} header.from=example.org"
        message = f"Authentication-Results: {domain}{chain}\r\n".encode() + message.partition(b"\r\n")[2]
        message = message_with_set(message, domain)
    return message


def message_with_set(message: bytes, domain: str) -> bytes:
    fields, _, rest = message.partition(b"\r\n")
    return fields + b"\r\n" + sealed_by_dkimpy(message, KEYS[domain].pem, domain, domain) + rest


def found(message: bytes, **more: Any) -> ARCResult:
    return judge(Content.of(message), {name: [record.encode()] for name, record in RECORDS.items()} | more)


class WithDkimpy(SynchronousTestCase):
    def test_chains_that_it_has_made(self) -> None:
        for sealers in (["lists.example"], ["lists.example", "relay.example"], ["lists.example"] * 5):
            result = found(sealed(MESSAGE, *sealers))
            self.assertEqual((result.result, result.reason, result.sealer), ("pass", "", sealers[-1]))
            self.assertEqual([one.seal.domain for one in result.sets], sealers)
        self.assertEqual((found(MESSAGE), found(MESSAGE).partial), (ARCResult("none"), False))

    def test_what_a_list_changes_after_a_set_breaks_no_chain_and_what_is_changed_after_the_last_does(self) -> None:
        message = sealed(MESSAGE, "lists.example").replace(b"Hello.", b"Hello.\r\n-- \r\nThe list").replace(b": hello", b": [list] hello")
        self.assertEqual(found(message).reason, "the newest message signature: the body has been changed")
        rest = message.partition(b"\r\n")[2]
        again = message_with_set(b"Authentication-Results: relay.example; arc=pass\r\n" + rest, "relay.example")
        self.assertEqual(found(again).result, "pass")  # whoever has changed it himself, after he had found it whole
        again = message_with_set(b"Authentication-Results: relay.example; arc=fail\r\n" + rest, "relay.example")
        self.assertEqual(found(again).reason, "its last sealer says that it has failed before")

    def test_it_thinks_what_we_think_wherever_a_chain_is_changed(self) -> None:
        message = sealed(MESSAGE, "lists.example", "relay.example")
        head = message.index(b"From:")
        for place in range(0, head, 37):
            changed = bytearray(message)
            changed[place] = ord("x") if changed[place] != ord("x") else ord("y")
            theirs = chain_by_dkimpy(bytes(changed), RECORDS)
            if theirs is not None:
                self.assertEqual(found(bytes(changed)).result, theirs, bytes(changed[: place + 20]))


class Chains(SynchronousTestCase):
    def test_there_are_fifty_sets_at_most(self) -> None:
        fields = b"".join([
            b"ARC-Seal: i=%d; a=rsa-sha256; cv=pass; d=x.example; s=s; b=AAAA\r\nARC-Message-Signature: i=%d; x=\r\n"
            b"ARC-Authentication-Results: i=%d; x.example; none\r\n" % (n, n, n) for n in range(51)
        ])  # fmt: skip
        self.assertEqual(read_chain(Content.of(fields + MESSAGE).headers).fault, "there are more than 50 sets")

    def test_a_chain_of_fifty_is_verified(self) -> None:
        message = MESSAGE
        for instance in range(1, 51):
            message = own_set(message, instance)
        result = judge(Content.of(message), {"s1._domainkey.lists.example": [ED25519.record.encode()]})
        self.assertEqual((result.result, len(result.sets)), ("pass", 50))

    def test_gaps_and_doubles_are_told(self) -> None:
        one = own_set(MESSAGE, 1)
        for message, wanted in (
            (own_set(MESSAGE, 2), "the set 1 of 2 is not whole"),
            (own_set(one, 3), "the set 2 of 3 is not whole"),
            (own_set(one, 1), "arc-seal: there are two of the set 1"),
            (one.replace(b"cv=none", b"cv=pass"), "the seal 1 says cv=pass"),
            (one.replace(b"cv=none", b"cv=fail"), "its last sealer says that it has failed before"),
            (own_set(one, 2).replace(b"cv=pass", b"cv=none"), "the seal 2 says cv=none"),
            (one.replace(b"cv=none", b"cv=maybe"), "arc-seal: cv is neither none, pass nor fail"),
            (one.replace(b"cv=none", b"cv=none; t=x"), "arc-seal: t is no time"),
            (one.replace(b"cv=none", b"cv=none; h=from"), "arc-seal: a seal has no tag h"),
            (one.replace(b"h=from", b"h=from:arc-seal"), "the newest message signature is over seals"),
            (b"ARC-Authentication-Results: i=1; mx.example; none\r\n" + one, "arc-authentication-results: there are two of the set 1"),
            (b"ARC-Seal: i=51; cv=pass\r\n" + one, "arc-seal: its instance i is not between 1 and 50"),
        ):
            result = judge(Content.of(message), {})
            self.assertEqual((result.result, result.reason), ("fail", wanted))

    def test_a_dns_that_cannot_tell_is_a_failure(self) -> None:
        message = own_set(own_set(MESSAGE, 1, domain="other.example"), 2)
        good = {f"s1._domainkey.{domain}": [ED25519.record.encode()] for domain in ("lists.example", "other.example")}
        self.assertEqual(judge(Content.of(message), good).result, "pass")
        for domain, reason in (
            ("lists.example", "the newest message signature: the DNS could not tell its key"),
            ("other.example", "the seal 1: the DNS could not tell its key"),
        ):
            result = judge(Content.of(message), {**good, f"s1._domainkey.{domain}": None})
            self.assertEqual((result.result, result.reason), ("fail", reason))
        self.assertEqual(judge(Content.of(message), {**good, "s1._domainkey.other.example": ()}).reason, "the seal 1: there is no key of this name")

    def test_an_old_message_signature_of_any_kind_does_no_harm(self) -> None:
        message = own_set(own_set(MESSAGE, 1, signature=b"i=1; a=rsa-sha1; x=nothing"), 2)
        self.assertEqual(judge(Content.of(message), {"s1._domainkey.lists.example": [ED25519.record.encode()]}).result, "pass")

    @given(st.lists(st.tuples(st.sampled_from([b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results"]), any_octets(max_size=80))), any_octets(max_size=60))
    def test_any_octets_are_a_chain_or_none_and_raise_nothing(self, fields: list[tuple[bytes, bytes]], record: bytes) -> None:
        head = b"".join([name + b": i=1; " + value.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n" for name, value in fields])
        self.assertIn(judge(Content.of(head + MESSAGE), {}).result, ("none", "fail"))
        broken = judge(Content.of(two_sets()), {"s1._domainkey.lists.example": [record]})
        self.assertEqual(broken.result, "fail")

    @given(st.integers(0, 600), any_octets(min_size=1, max_size=3))
    def test_any_octets_within_a_chain_raise_nothing(self, place: int, octets: bytes) -> None:
        message = two_sets()
        judge(Content.of(message[:place] + octets + message[place + 1 :]), {"s1._domainkey.lists.example": [ED25519.record.encode()]})


class Trust(SynchronousTestCase):
    def trusted(self, message: bytes, *domains: str) -> list[int]:
        result = judge(Content.of(message), {f"s1._domainkey.{name}.example": [ED25519.record.encode()] for name in ("a", "b", "c")})
        return [one.instance for one in trusted_sets(result, domains)]

    def test_it_ends_at_the_first_stranger_from_the_top(self) -> None:
        message = MESSAGE
        for instance, domain in enumerate(("a.example", "b.example", "c.example"), 1):
            message = own_set(message, instance, domain=domain)
        self.assertEqual(self.trusted(message, "a.example", "b.example", "c.example"), [3, 2, 1])
        self.assertEqual(self.trusted(message, "a.example", "c.example"), [3])
        self.assertEqual(self.trusted(message, "a.example", "b.example"), [])
        self.assertEqual(self.trusted(message, "example"), [])
        self.assertEqual(self.trusted(message.replace(b"Hello.", b"Hallo."), "c.example"), [])

    def test_a_signature_that_leaves_the_author_or_a_part_of_the_body_out_shows_nothing(self) -> None:
        self.assertEqual(self.trusted(own_set(MESSAGE, 1, domain="a.example"), "a.example"), [1])
        self.assertEqual(self.trusted(own_set(MESSAGE, 1, domain="a.example", names=("subject",)), "a.example"), [])
        partial = own_set(MESSAGE, 1, domain="a.example", octets=3)
        self.assertEqual(self.trusted(partial, "a.example"), [])
        result = judge(Content.of(partial), {"s1._domainkey.a.example": [ED25519.record.encode()]})
        self.assertEqual((result.result, result.partial), ("pass", True))


class ForeignResults(SynchronousTestCase):
    def test_results_are_read(self) -> None:
        text = (
            'mx.example (a (nested; dmarc=pass) comment) 1; spf=fail (x; dmarc=pass) smtp.mailfrom="a b"@c.example;\r\n\t'
            'dkim = pass reason="of course; dmarc=pass" header.d=example.org header.b=ab/c=; none; DMARC/1=Pass '
            "(p=reject dis=none) header.from=Example.org"
        )
        self.assertEqual([(one.method, one.result, dict(one.properties), one.reason) for one in read_results(text)], [
            ("spf", "fail", {"smtp.mailfrom": "a b@c.example"}, ""),
            ("dkim", "pass", {"header.d": "example.org", "header.b": "ab/c"}, "of course; dmarc=pass"),
            ("dmarc", "pass", {"header.from": "Example.org"}, ""),
        ])  # fmt: skip

    def test_results_as_large_hosts_write_them(self) -> None:
        for text in (
            "mx.google.com; dkim=pass header.i=@example.org header.s=s1 header.b=Ab+/9z1x; spf=pass (google.com: domain of "
            "ann@example.org designates 192.0.2.1 as permitted sender) smtp.mailfrom=ann@example.org; "
            "dmarc=pass (p=REJECT sp=REJECT dis=NONE) header.from=example.org",
            "mx.microsoft.com 1; spf=pass (sender ip is 192.0.2.1) smtp.rcpttodomain=example.net smtp.mailfrom=example.org; "
            "dmarc=pass (p=none sp=none pct=100) action=none header.from=example.org; dkim=pass (signature was verified) "
            "header.d=example.org; arc=pass (0 oda=1 ltdi=1 spf=[1,1,smtp.mailfrom=example.org] dkim=[1,1,header.d=example.org])",
            'mx.example.net; dkim=pass (2048-bit key; unprotected) header.d=example.org header.i=@example.org header.b="Ab+/9z1x";'
            "\r\n\tdkim-atps=neutral; dmarc=pass (policy=reject) header.from=example.org",
        ):
            [found] = [one for one in read_results(text) if one.method == "dmarc"]
            self.assertEqual((found.result, found.properties["header.from"]), ("pass", "example.org"))
            self.assertEqual([one.result for one in read_results(text) if one.method in ("dkim", "spf", "arc")].count("pass"),
                             text.count("=pass") - 1)  # fmt: skip
        self.assertEqual(read_results("mx.microsoft.com; dmarc=bestguesspass action=none header.from=a.example")[0].result, "bestguesspass")

    def test_what_is_quoted_or_a_comment_is_no_result(self) -> None:
        for text in (
            "mx; none", "mx", "", ";", ";;;", "; dmarc=", "; dmarc", "; =pass", 'mx; spf=x "; dmarc=pass header.from=a.example',
            "mx; (spf=x ; dmarc=pass header.from=a.example", 'mx; x="\\"; dmarc=pass', "dmarc=pass header.from=a.example",
            "mx; x (\\) ; dmarc=pass", "mx ) (; dmarc=pass", "mx; dmarc (=) pass",
        ):  # fmt: skip
            self.assertNotIn("dmarc", [one.method for one in read_results(text)], text)

    def test_comments_divide_words_and_are_within_comments(self) -> None:
        for text in (
            "mx; dmarc=pass (a (b) ; spf=pass ((c)) ; x=y) header.from=a.example",
            "mx; dmarc=pass(p=none)header.from=a.example",
            "; dmarc=pass header.from=a.example",
        ):
            self.assertEqual(list(read_results(text)), [MethodResult("dmarc", "pass", {"header.from": "a.example"})], text)

    def test_names_are_names_and_values_no_signs(self) -> None:
        self.assertEqual(read_results("mx; dm!rc=pass; dmarc=p!ss; d!=p!"), ())
        self.assertEqual(read_results("mx; a=b c = = d e")[0].properties, {})
        self.assertEqual(len(read_results("mx" + "; a=b" * 51)), 50)

    def test_what_we_write_we_read(self) -> None:
        results = [MethodResult("dmarc", "fail", {"header.from": 'a"b; c=(d)', "policy.dmarc": "reject"}, 'why; "so"')]
        self.assertEqual(list(read_results(authentication_results("mx.example", results))), results)

    def test_it_reads_what_is_long_in_a_moment(self) -> None:
        for text in ('mx; "' + '\\"' * 100_000, "mx; " + "(" * 200_000, "mx; " + "a" * 200_000, "mx; " + " =" * 100_000, "mx" + ";" * 200_000):
            self.assertEqual(read_results(text), ())

    @given(st.text(alphabet='ab;="() \\.', max_size=60))
    def test_any_text_raises_nothing(self, text: str) -> None:
        read_results(text)


def own_set(
    message: bytes,
    instance: int,
    *,
    domain: str = "lists.example",
    signature: bytes = b"",
    names: tuple[str, ...] = ("from", "subject"),
    octets: int | None = None,
    results: bytes = b"dmarc=pass header.from=example.org",
) -> bytes:
    """The message with one set more, made with the parts that verify; in `signature` a message signature of another kind."""
    content = Content.of(message)
    results = b"ARC-Authentication-Results: i=%d; %s; %s" % (instance, domain.encode(), results)
    hashed = body_hashes(body_chunks(content), [("relaxed", octets)])["relaxed", octets][0]
    tags = f"i={instance}; a=ed25519-sha256; d={domain}; s=s1;"
    length = "" if octets is None else f" l={octets};"
    value = f"{tags} c=relaxed/relaxed;{length} h={':'.join(names)}; bh={base64.b64encode(hashed).decode()}; b="
    signed = Signature("ed25519-sha256", domain, "s1", f"@{domain}", names, hashed, b"", "relaxed", "relaxed")
    raw = b"ARC-Message-Signature: " + value.encode()
    raw += base64.b64encode(ED25519.sign(header_digest(content.headers, raw, signed)))
    if signature:
        raw = b"ARC-Message-Signature: " + signature
    seal = f"ARC-Seal: {tags} cv={'pass' if instance > 1 else 'none'}; b=".encode()
    sets = [own_fields(content, n) for n in range(1, instance)]
    whole = b"\r\n".join([canonical_field(one, "relaxed") for fields in [*sets, (results, raw, seal)] for one in fields])
    seal += base64.b64encode(ED25519.sign(hashlib.sha256(whole).digest()))
    return b"\r\n".join([seal, raw, results, message])


@functools.cache
def two_sets() -> bytes:
    return own_set(own_set(MESSAGE, 1), 2)


def own_fields(content: Content, instance: int) -> tuple[bytes, ...]:
    """Those of a set, where there is one."""
    names = (b"arc-authentication-results", b"arc-message-signature", b"arc-seal")
    marks = (b" i=%d;" % instance,) * 3
    return tuple([
        field.raw for name, mark in zip(names, marks, strict=True) for field in content.headers if field.name == name and mark in field.raw
    ])  # fmt: skip
