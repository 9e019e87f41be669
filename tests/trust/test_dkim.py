"""DKIM signatures, verified and made (RFC 6376, RFC 8301, RFC 8463); dkimpy is the other side."""

from __future__ import annotations

import base64
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.content import Content
from mailserver.trust.canonical import body_chunks
from mailserver.trust.dkim import DKIMResult, body_hashes, forms_of, read_signatures, sign, verify
from mailserver.trust.dkim_key import PrivateKey, parse_key, read_private_key
from mailserver.trust.dkim_signature import parse_signature
from mailserver.trust.tag_list import TagFault, parse_tags
from tests.any_octets import any_octets
from tests.trust.dkimpy_peer import signed_by_dkimpy, verified_by_dkimpy

NOW = int(time.time()) - 1000  # dkimpy goes by the real clock, when it signs and when it verifies
RSA, ED25519 = PrivateKey.generate("rsa"), PrivateKey.generate("ed25519")
MESSAGE = (
    b"From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject:  hello \r\n\tthere\r\nDate: Mon, 30 Nov 2026 12:00:00 +0000\r\n"
    b"Message-ID: <1@example.org>\r\n\r\nHello  world \r\n\r\n tab\tx\r\n.\r\n\r\n\r\n"
)
# RFC 8463 appendix A.
RFC_8463 = b"""\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")
# RFC 6376 appendix A.2, with the key of appendix C.
RFC_6376 = b"""\
DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")
RFC_6376_KEYS = {
    "brisbane._domainkey.example.com": (
        b"v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ij"
        b"Ssq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"
    ),
}
RFC_8463_KEYS = {
    "brisbane._domainkey.football.example.com": b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "test._domainkey.football.example.com": (
        b"v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/b"
        b"yYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"
    ),
}


def signed(message: bytes = MESSAGE, key: PrivateKey = RSA, **options: Any) -> Content:
    content = Content.of(message)
    hashes = body_hashes(body_chunks(content), [("relaxed", None)])
    more = {"domain": "example.org", "selector": "s1", "signed_at": NOW, **options}
    value = sign(content.headers, hashes["relaxed", None][0], key, **more)
    return content.with_prefix(b"DKIM-Signature: " + value.encode() + b"\r\n")


def results(content: Content, keys: Any = None, now: float = NOW) -> list[DKIMResult]:
    """Verify every signature; `keys` by name, or one for all."""
    found = read_signatures(content.headers)
    bodies = body_hashes(body_chunks(content), forms_of(found))
    answers = []
    for one in found:
        record = keys.get(one.signature.key_name) if isinstance(keys, dict) and one.signature is not None else keys
        answers.append(verify(one, content.headers, bodies, [] if record is None else [record], now=now))
    return answers


def words(content: Content, keys: Any = RSA.record.encode(), now: float = NOW) -> list[str]:
    return [one.result for one in results(content, keys, now)]


def foreign(key: PrivateKey, header: str, body: str, **options: Any) -> Content:
    """The message, signed by dkimpy."""
    secret = key.pem if key.kind == "rsa" else base64.b64encode(key.key.private_bytes_raw())
    field = signed_by_dkimpy(MESSAGE, secret, key.algorithm, canonicalize=[header, body], **options)
    return Content.of(field + MESSAGE)


class Examples(SynchronousTestCase):
    def test_the_signature_of_rfc_6376_appendix_a(self) -> None:
        self.assertEqual(words(Content.of(RFC_6376), RFC_6376_KEYS), ["pass"])
        for changed in (RFC_6376.replace(b"game. Are", b"game.  Are"), RFC_6376.replace(b"Fri, 11 Jul 2003 21:01", b"Fri, 11 Jul 2003 21:02")):
            self.assertEqual(words(Content.of(changed), RFC_6376_KEYS), ["fail"])

    def test_both_signatures_of_rfc_8463_appendix_a(self) -> None:
        found = results(Content.of(RFC_8463), RFC_8463_KEYS)
        self.assertEqual([(one.result, one.algorithm, one.key_bits) for one in found], [
            ("pass", "ed25519-sha256", 256), ("pass", "rsa-sha256", 1024),
        ])  # fmt: skip

    def test_one_octet_more_in_a_signed_field_or_the_body_is_a_fail(self) -> None:
        for place in (b"Joe SixPack", b"dinner", b"We lost", b"hungry"):
            self.assertEqual(words(Content.of(RFC_8463.replace(place, place + b"x")), RFC_8463_KEYS), ["fail", "fail"], place)


class WithDkimpy(SynchronousTestCase):
    def test_what_we_sign_it_verifies(self) -> None:
        for key in (RSA, ED25519):
            for message in (MESSAGE, MESSAGE.replace(b"hello", "grün".encode()), b"From: a@example.org\r\n\r\n", MESSAGE * 20):
                octets = b"".join(signed(message, key).chunks())
                self.assertIs(verified_by_dkimpy(octets, key.record), True, (key, message))

    def test_what_it_signs_we_verify_in_every_form(self) -> None:
        for key in (RSA, ED25519):
            for header in ("simple", "relaxed"):
                for body in ("simple", "relaxed"):
                    for length in (False, True):
                        content = foreign(key, header, body, length=length)
                        self.assertEqual(words(content, key.record.encode()), ["pass"], (key, header, body, length))

    @given(st.lists(st.sampled_from(["From: b@c.example", "Subject: x", " folded ", "X-Odd:", "To : d", "\tz", "nonsense"]), max_size=8),
           st.lists(st.sampled_from(["a", " ", "\t", "\r\n", "..", "xy z"]), max_size=20))  # fmt: skip
    def test_of_any_message_it_thinks_what_we_think(self, fields: list[str], body: list[str]) -> None:
        message = "".join([field + "\r\n" for field in ["From: a@example.org", *fields]]) + "\r\n" + "".join(body) + "\r\n"
        octets = b"".join(signed(message.encode(), ED25519).chunks())
        theirs = verified_by_dkimpy(octets, ED25519.record)
        if theirs is not None:
            self.assertEqual(words(Content.of(octets), ED25519.record.encode()) == ["pass"], theirs)


class Verifying(SynchronousTestCase):
    def test_a_field_that_is_added_breaks_it_where_one_of_its_name_was_signed(self) -> None:
        for field in (b"From: eve@evil.example", b"Subject: other", b"To: eve@evil.example", b"Reply-To: eve@evil.example"):
            self.assertEqual(words(signed().with_prefix(field + b"\r\n")), ["fail"], field)
        self.assertEqual(words(signed().with_prefix(b"List-Id: <a.example>\r\nX-Mine: 1\r\n")), ["pass"])

    def test_folding_and_blanks_that_relays_change_do_not_break_it(self) -> None:
        content = b"".join(signed().chunks())
        changed = content.replace(b"Subject:  hello \r\n\tthere", b"SUBJECT: hello  there").replace(b"world ", b"world")
        self.assertEqual(words(Content.of(changed)), ["pass"])

    def test_the_lowest_fields_are_the_signed_ones(self) -> None:
        content = foreign(RSA, "relaxed", "relaxed", include_headers=["from", "subject"])
        self.assertEqual(words(content), ["pass"])
        self.assertEqual(words(content.with_prefix(b"Subject: on top\r\n")), ["pass"])

    def test_an_author_who_was_added_breaks_it_whether_he_was_signed_away_or_not(self) -> None:
        content = foreign(RSA, "relaxed", "relaxed", include_headers=["from", "subject"])
        for field in (b"From: Boss <boss@example.org>", b"from : Boss <boss@example.org>"):
            self.assertEqual(words(content.with_prefix(field + b"\r\n")), ["fail"])

    def test_times(self) -> None:
        octets = b"".join(signed().chunks())
        timely = octets.replace(f"t={NOW};".encode(), f"t={NOW}; x={NOW + 1000};".encode())
        self.assertEqual(results(Content.of(timely), RSA.record.encode(), NOW + 2000)[0].reason, "it has expired")
        self.assertEqual(results(signed(), RSA.record.encode(), NOW - 200_000)[0].reason, "it was made in the future")
        self.assertEqual(words(signed(), now=NOW - 200), ["pass"])

    def test_a_length_leaves_what_was_added_out_and_says_so(self) -> None:
        for form in ("relaxed", "simple"):
            content = foreign(RSA, "relaxed", form, length=True)
            longer = Content.of(b"".join(content.chunks()) + b"Buy this!\r\n")
            self.assertEqual([(one.result, one.partial) for one in results(longer, RSA.record.encode())], [("pass", True)])
            self.assertEqual([one.partial for one in results(content, RSA.record.encode())], [False])
        shorter = Content.of(b"".join(content.chunks()).replace(b" tab", b""))
        self.assertEqual(results(shorter, RSA.record.encode())[0].reason, "the body is shorter than what was signed")

    def test_keys_that_are_of_no_use(self) -> None:
        other = PrivateKey.generate("ed25519").record
        small = dkim_key_of_bits(512)
        wanted = {
            "": "permerror", "v=DKIM1; p=": "permerror", "v=DKIM2; p=x": "permerror", "p=%%%": "permerror", "p=AAAA": "permerror",
            other: "permerror", RSA.record.replace("k=rsa", "k=ed25519"): "permerror", RSA.record + "; h=sha1": "permerror",
            RSA.record + "; s=tlsrpt": "permerror", small: "permerror", PrivateKey.generate("rsa").record: "fail",
            RSA.record + "; t=y": "pass", RSA.record + "; h=sha1:sha256; s=*; n=for mail": "pass", RSA.record[len("v=DKIM1; "):]: "pass",
        }  # fmt: skip
        for record, word in wanted.items():
            self.assertEqual(words(signed(), record.encode()), [word], record)
        self.assertTrue(results(signed(), (RSA.record + "; t=y").encode())[0].testing)
        self.assertEqual(results(signed(), None)[0].reason, "there is no key of this name")
        for record in (b"v=DKIM1; p=", b"v=DKIM1; k=ed25519; p= "):
            self.assertEqual(results(signed(), record)[0].reason, "the key has been revoked")

    def test_a_key_that_is_dear_to_verify_with_is_of_no_use(self) -> None:
        for bits, word in ((64, "fail"), (65, "permerror"), (2047, "permerror")):
            numbers = RSAPublicNumbers((1 << bits) - 1, (1 << 2047) | (1 << 2046) | 1)
            octets = numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            self.assertEqual(words(signed(), b"p=" + base64.b64encode(octets)), [word], bits)

    def test_what_the_dns_could_not_tell_is_temporary(self) -> None:
        content = signed()
        [found] = read_signatures(content.headers)
        bodies = body_hashes(body_chunks(content), forms_of([found]))
        self.assertEqual(verify(found, content.headers, bodies, None, now=NOW).result, "temperror")

    def test_a_strict_key_is_for_the_domain_itself(self) -> None:
        content = foreign(RSA, "relaxed", "relaxed", identity="ann@sub.example.org")
        self.assertEqual(words(content), ["pass"])
        self.assertEqual(words(content, (RSA.record + "; t=s").encode()), ["permerror"])

    def test_of_many_signatures_the_first_ones_are_looked_at(self) -> None:
        content = signed()
        for _ in range(30):
            content = content.with_prefix(b"DKIM-Signature: v=1; a=x\r\n")
        self.assertEqual(words(content), ["permerror"] * 8)

    @given(any_octets(max_size=200))
    def test_any_octets_in_place_of_a_field_or_a_key_raise_nothing(self, octets: bytes) -> None:
        content = Content.of(b"DKIM-Signature: " + octets.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n" + MESSAGE)
        results(content, RSA.record.encode())
        results(signed(), octets)


class Signing(SynchronousTestCase):
    def test_what_it_signs_stands_once_more_than_it_is_there(self) -> None:
        [found] = read_signatures(signed().headers)
        assert found.signature is not None
        names = found.signature.headers
        self.assertEqual([names.count(name) for name in ("from", "subject", "cc", "list-id")], [2, 2, 1, 0])

    def test_its_lines_are_short_and_hold_nothing_but_what_belongs_there(self) -> None:
        many = b"".join([b"To: x@example.net\r\n"] * 100) + MESSAGE
        field = signed(many, domain="a-very-long-name." * 8 + "example.org").prefix
        self.assertLessEqual(max(map(len, field.split(b"\r\n"))), 998)
        self.assertTrue(field.isascii())
        self.assertEqual(words(signed(many)), ["pass"])

    def test_the_names_of_fields_are_whole_wherever_its_lines_break(self) -> None:
        for n in range(1, 80):
            names = ["from", "x" * n, *["content-transfer-encoding"] * 9]
            field = signed(key=ED25519, names=names)
            [found] = read_signatures(field.headers)
            assert found.signature is not None, found.fault
            self.assertEqual(found.signature.headers, ("from", *names), n)

    def test_keys_are_kept_and_read_and_shown_to_nobody(self) -> None:
        for key in (RSA, ED25519):
            again = read_private_key(key.pem)
            self.assertEqual(again.record, key.record)
            self.assertEqual(parse_key(key.record).kind, key.kind)
            self.assertNotIn("PRIVATE", repr(key))
        for pem in (b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
            self.assertRaises(ValueError, read_private_key, pem)

    def test_a_damaged_key_signs_nothing(self) -> None:
        for place in range(60, len(RSA.pem) - 60, 41):
            pem = bytearray(RSA.pem)
            pem[place] = ord("A") if pem[place] != ord("A") else ord("B")
            try:
                key = read_private_key(bytes(pem))
            except ValueError:
                continue
            self.assertEqual(key.sign(bytes(32)), RSA.sign(bytes(32)))  # a line's end, say


class Tags(SynchronousTestCase):
    def test_lists(self) -> None:
        self.assertEqual(parse_tags("a=1; b = x y ;c=;"), {"a": "1", "b": "x y", "c": ""})
        for wrong in ("a", "a=1;;b=2", "a=1;a=2", "=1", "1a=2", "a=\x00", "a=ä", ";"):
            self.assertRaises(TagFault, parse_tags, wrong)

    def test_signatures_that_say_nonsense(self) -> None:
        good = "v=1; a=rsa-sha256; d=example.org; s=s1; h=from:to; bh=AAAA; b=AAAA"
        self.assertEqual(parse_signature(good.replace("from:", "from:: ")).headers, ("from", "to"))
        wrong = {
            "v=1": "v=2", "a=rsa-sha256": "a=rsa-sha1", "d=example.org": "d=exa mple", "s=s1": "s=", "h=from:to": "h=to",
            "bh=AAAA": "bh=", "; b=AAAA": "; b=%%", "h=from": "h=fr om",
        }  # fmt: skip
        for right, changed in wrong.items():
            self.assertRaises(TagFault, parse_signature, good.replace(right, changed))
        for more in ("i=a@other.example", "i=example.org.evil", "c=odd/simple", "q=http", "l=-1", "t=x", "t=20; x=10", "i=@xexample.org"):
            self.assertRaises(TagFault, parse_signature, f"{good}; {more}")
        for algorithm, reason in (("rsa-sha1", "rsa-sha1, is not to be used any more"), ("rsa-sha512", "is unknown")):
            with self.assertRaisesRegex(TagFault, reason):
                parse_signature(good.replace("rsa-sha256", algorithm))
        self.assertEqual(parse_signature(f"{good}; i=a@b.example.org; c=relaxed").body_form, "simple")


def dkim_key_of_bits(bits: int) -> str:
    """The record of a key that is too short (512 bits; made once, since the library makes none)."""
    self_made = (
        "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwEC"
        "AwEAAQ=="
    )
    assert bits == 512
    return f"v=DKIM1; p={self_made}"


