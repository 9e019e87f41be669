"""Mail of users to many: what is said of its List-Unsubscribe fields."""

from __future__ import annotations

import base64
import itertools

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.api import Refuse
from mailserver.filters.list_unsubscribe import factory, faults_of, is_bulk, uris_of
from mailserver.mail.content import Content
from mailserver.mail.headers import Headers
from mailserver.testing import FilterCase, MailCase
from mailserver.trust.dkim import sign
from mailserver.trust.dkim_key import PrivateKey
from tests.any_octets import any_octets

POST = "List-Unsubscribe-Post: List-Unsubscribe=One-Click"
HTTPS, MAILTO, HTTP = "<https://example.org/leave?t=x,y(z)>", "<mailto:leave@example.org?subject=x>", "<http://example.org/leave>"
FOLDS = (", ", ",", ",\r\n ", " ,\r\n\t", ", (or by mail, \\) (really))\r\n ")
# The URIs in any order, and what is wrong with them.
LISTS = (
    ((HTTPS,), set()),
    ((HTTPS, MAILTO), set()),
    ((MAILTO, HTTPS), set()),
    (("<HTTPS://example.org/x>",), set()),
    (("<https://example.org/\r\n a/b>",), set()),
    ((MAILTO,), {"no-https"}),
    ((MAILTO, "<mailto:other@example.org>"), {"no-https"}),
    ((HTTP,), {"no-https", "http"}),
    ((HTTP, HTTPS), {"http"}),
    ((HTTPS, "<https://example.org/other>"), {"several-https"}),
    (("https://example.org/leave",), {"no-https", "syntax"}),
    (("<https:///leave>",), {"no-https"}),
    (("<https://[::1/leave>",), {"no-https"}),
    (("<https://b\u00fccher.example/>",), {"no-https"}),
    (("=?utf-8?q?=3Chttps=3A//example.org/=3E?=",), {"no-https", "syntax"}),
    ((HTTPS, ""), {"syntax"}),
    ((HTTPS + " " + MAILTO,), {"syntax"}),
    (("<" + HTTPS,), {"syntax"}),
    (("(" + HTTPS,), {"no-https", "syntax"}),
)
POSTS: tuple[tuple[tuple[str, ...], set[str]], ...] = (
    ((POST,), set()),
    (("list-unsubscribe-post:LIST-UNSUBSCRIBE=One-Click",), set()),
    (("List-Unsubscribe-Post:\r\n List-Unsubscribe=One-Click ",), set()),
    ((), {"no-post"}),
    (("List-Unsubscribe-Post: List-Unsubscribe=One-Click (click)",), {"post"}),
    (("List-Unsubscribe-Post: One-Click",), {"post"}),
    ((POST, POST), {"several-posts"}),
)


def faults(*fields: str) -> set[str]:
    """The words for programs."""
    return set(dict(faults_of(Headers.parse("\r\n".join(fields).encode()))))


class Fields(SynchronousTestCase):
    """A corpus of header variants."""

    def test_each_variant_has_the_faults_that_it_has(self) -> None:
        seen = 0
        for (uris, wrong), fold, (posts, also) in itertools.product(LISTS, FOLDS, POSTS):
            field = "List-Unsubscribe: " + fold.join(uris)
            self.assertEqual(faults("Subject: news", field, *posts), wrong | also, (field, posts))
            seen += 1
        self.assertEqual(seen, len(LISTS) * len(FOLDS) * len(POSTS))

    def test_a_field_that_is_missing_or_stands_twice_is_said(self) -> None:
        self.assertEqual(faults("Subject: x"), {"missing", "no-post"})
        self.assertEqual(faults(f"List-Unsubscribe: {HTTPS}", f"list-unsubscribe: {HTTPS}", POST), {"several"})
        self.assertEqual(faults(f"List-Unsubscribe: (leave) {HTTPS} (now)", POST), set())

    def test_a_signature_that_it_brings_has_to_cover_both(self) -> None:
        good = (f"List-Unsubscribe: {HTTPS}", POST)
        for listed, wrong in (
            ("from:list-unsubscribe:list-unsubscribe-post", set()),
            ("From : List-Unsubscribe-Post :\r\n LIST-UNSUBSCRIBE", set()),
            ("from:list-unsubscribe", {"unsigned"}),
            ("from", {"unsigned"}),
        ):
            self.assertEqual(faults(f"DKIM-Signature: v=1; d=x.example; h={listed}; b=x", *good), wrong, listed)
        either = "DKIM-Signature: v=1; h=from; b=x", "DKIM-Signature: v=1; h=from:list-unsubscribe-post:list-unsubscribe"
        self.assertEqual(faults(*either, *good), set())

    def test_our_own_signature_covers_both(self) -> None:
        content = Content.of(f"From: a@example.org\r\nList-Unsubscribe: {HTTPS}\r\n{POST}\r\n\r\nhi\r\n".encode())
        hashed = base64.b64decode("AAAA" * 10 + "AAA=")  # of a body that nobody looks at
        key = PrivateKey.generate("ed25519")
        value: str = sign(content.headers, hashed, key, domain="example.org", selector="s", signed_at=1)
        self.assertEqual(faults(f"DKIM-Signature: {value}", f"List-Unsubscribe: {HTTPS}", POST), set())

    def test_a_list_is_known_by_its_fields(self) -> None:
        for field in ("List-Id: x", "list-help: x", "Precedence: bulk", "Precedence: List ", POST):
            self.assertTrue(is_bulk(Headers.parse(field.encode())), field)
        for field in ("Subject: List-Id: x", "Precedence: junk", "X-List: x", "Listing: x"):
            self.assertFalse(is_bulk(Headers.parse(field.encode())), field)

    @given(any_octets(max_size=300), st.text(st.sampled_from("<>(),\\ \t\"https://x.example"), max_size=200))
    def test_any_field_has_an_answer(self, octets: bytes, text: str) -> None:
        dict(faults_of(Headers.parse(b"List-Unsubscribe: " + octets + b"\r\n" + POST.encode())))
        uris, _ = uris_of(text)
        self.assertFalse([one for one in uris if " " in one or ">" in one])

    def test_a_very_long_field_is_bounded(self) -> None:
        self.assertIn("syntax", faults("List-Unsubscribe: " + f"{HTTPS}, " * 10_000, POST))
        self.assertIn("syntax", faults("List-Unsubscribe: " + "(" * 100_000, POST))


class Verdicts(FilterCase):
    """Whose mail is looked at, and what comes of it."""

    def judged(self, message: bytes, *, service: str = "submission", recipients: int = 1, **options: object) -> object:
        component = self.build(factory, **options)
        to = tuple([f"r{n}@example.net" for n in range(recipients)])
        envelope = self.envelope(sender="alice@example.org", recipients=to, peer=self.peer(service=service, login="alice@example.org"))
        return self.judge(component.judge_content(envelope, self.content(message)))

    def test_mail_to_many_and_mail_of_lists_has_a_finding_and_is_not_refused(self) -> None:
        for message, recipients in ((b"Subject: x\r\n\r\nhi\r\n", 50), (b"List-Id: <x>\r\n\r\nhi\r\n", 1)):
            verdict = self.judged(message, recipients=recipients)
            [finding] = verdict.findings  # type: ignore[attr-defined]
            self.assertEqual((finding.name, finding.score, finding.properties["faults"]), ("list_unsubscribe", 0.0, "missing no-post"))
            self.assertPassed(verdict, "list_unsubscribe")

    def test_mail_to_a_few_and_mail_that_is_right_has_none(self) -> None:
        good = f"List-Unsubscribe: {HTTPS}\r\n{POST}\r\n\r\nhi\r\n".encode()
        for message, recipients in ((b"Subject: x\r\n\r\nhi\r\n", 49), (good, 1), (good, 200)):
            self.assertEqual(self.judged(message, recipients=recipients).findings, ())  # type: ignore[attr-defined]

    def test_where_the_administrator_says_so_it_is_refused(self) -> None:
        verdict = self.judged(b"Precedence: bulk\r\n\r\nhi\r\n", refuse=True)
        assert isinstance(verdict, Refuse) and verdict.reply is not None
        self.assertIn("RFC 8058", str(verdict.reply))


class OnTheServer(MailCase):
    """As an ordinary plugin, before the commit."""

    def test_the_finding_stands_on_the_road_and_others_mail_is_none_of_its_business(self) -> None:
        self.serve('[[filter]]\nuse = "list_unsubscribe"\n')
        message = b"From: alice@example.org\r\nPrecedence: bulk\r\n\r\nhi\r\n"
        self.assertEqual(self.send(message).code, 250)
        self.assertEqual(self.steps("filter"), [])
        sent = self.send(message, service="submission", login="alice@example.org", sender="alice@example.org")
        self.assertEqual(sent.code, 250)
        [step] = self.steps("filter")
        self.assertIn("list_unsubscribe", str(step))
        self.assertIn("there is no List-Unsubscribe field", str(step))
