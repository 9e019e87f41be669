"""What of a message counts, and what is made of it; whatever the octets are."""

from __future__ import annotations

import os
from random import Random
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.trust import tokens as module
from mailserver.trust.bayes import Learned, TokenCounts, chi_square, fisher, score_of, strength, weigh
from mailserver.trust.secret_key import NoKey, secret_key
from mailserver.trust.tokens import READ_OCTETS, TOKENS_MOST, reduced, start_of, tokens_of
from tests.any_octets import any_octets

KEY = b"k" * 32
PIECES = [
    b"<", b">", b"<!--", b"-->", b"<script", b"</script>", b"&#x", b"&amp;", b"href=\"http://", b"http://x.example/", b"=?utf-8?q?=",
    b"?=", b"\r\n", b"\r\n\r\n", b"--b", b"--b--", b"Content-Type: multipart/mixed; boundary=b", b"Content-Type: text/html; charset=",
    b"Content-Transfer-Encoding: base64", b"Content-Transfer-Encoding: quoted-printable", b"=", b"a-", b"a.", b"\xcc\x81", b"\xe4\xbd\xa0",
    b"From: a@b.example", b"utf-7", b"idna", b"punycode", b"zip", b"Subject: ", b"word ", b"\xff", b"\0", b"  ",
]  # fmt: skip


def words(body: str, head: str = "") -> tuple[str, ...]:
    return tokens_of(f"{head}\r\n\r\n{body}".encode())


class Tokens(SynchronousTestCase):
    def test_words_are_those_that_a_reader_sees(self) -> None:
        found = words(
            "<html><head><title>unseen</title><style>x { unseen }</style></head><!-- unseen --><p>vi<b>agr</b>a&nbsp;now</p>"
            '<a href="http://www.shop.example/unseen">here</a><br>Stra\u00dfe $100 1234567',
            "Content-Type: text/html; charset=utf-8",
        )
        self.assertEqual(
            found, ("part:text/html", "url:www.shop.example", "url:shop.example", "viagra", "now", "here", "strasse", "$100")
        )

    def test_fields_of_the_author_count_and_those_of_servers_on_the_way_do_not(self) -> None:
        head = "From: =?utf-8?q?J=C3=BCrgen?= <j@Example.NET>\r\nSubject: =?iso-8859-1?q?Gr=FC=DFe?=\r\nReply-To: x@y.example"
        found = words("hello", head)
        self.assertEqual(
            found,
            ("subject:gr\u00fcsse", "from:j@example.net", "from:@example.net", "from:j\u00fcrgen", "reply-to:x@y.example",
             "reply-to:@y.example", "hello"),
        )  # fmt: skip
        added = "Return-Path: <a@b>\r\nDelivered-To: alice\r\nReceived: by mx.example.org id 01ABCDEF\r\nX-Spam: yes\r\n"
        self.assertEqual(words("hello", added + head), found)

    def test_charsets_and_encodings_are_undone_and_what_is_none_is_read_as_utf_8(self) -> None:
        for octets in (
            "caf\u00e9 bonjour".encode("latin-1"), b"Y2Fm6SBib25qb3Vy", b"caf=E9 bonjour",
        ):  # fmt: skip
            encoding = {b"Y": b"base64", b"c": b"quoted-printable" if b"=" in octets else b"8bit"}[octets[:1]]
            head = b"Content-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: " + encoding
            self.assertEqual(tokens_of(head + b"\r\n\r\n" + octets), ("caf\u00e9", "bonjour"))
        for charset in ("idna", "punycode", "zlib", "rot13", "undefined", "x" * 500):
            self.assertEqual(words("caf\u00e9", f"Content-Type: text/plain; charset={charset}"), ("caf\u00e9",))

    def test_short_words_and_numbers_are_none_in_any_script(self) -> None:
        self.assertEqual(words("a ab abc 12345 \u00e9a \u0663\u0664\u0665\u0666 caf\u00e9"), ("abc", "caf\u00e9"))

    def test_of_a_long_message_so_many_tokens_and_so_much_text_are_taken(self) -> None:
        self.patch(module, "TOKENS_MOST", 5)
        self.assertEqual(words(" ".join(f"word{n}" for n in range(20))), tuple(f"word{n}" for n in range(5)))
        self.patch(module, "TOKENS_MOST", 100)
        self.patch(module, "TEXT_OCTETS", 16)
        parts = "".join([f"--b\r\n\r\n{text}\r\n" for text in ("one two three", "four five six", "seven eight")])
        found = words(parts + "--b--\r\n", "Content-Type: multipart/mixed; boundary=b")
        self.assertEqual(found, ("part:text/plain", "one", "two", "three", "fou"))

    def test_scripts_without_blanks_are_read_by_pairs(self) -> None:
        self.assertEqual(words("\u4f60\u597d\u4e16"), ("\u4f60\u597d", "\u597d\u4e16"))

    def test_attachments_count_by_what_they_are(self) -> None:
        body = (
            "--b\r\n\r\nhello\r\n--b\r\nContent-Type: application/zip; name=x.ZIP\r\n\r\nsecret words inside\r\n--b--\r\n"
        )
        self.assertEqual(
            words(body, "Content-Type: multipart/mixed; boundary=b"), ("part:text/plain", "hello", "part:application/zip", "name:zip")
        )

    @given(st.text(st.sampled_from("ab7$'.- ,\n\x1c\x00_"), max_size=60))
    def test_words_in_ascii_are_those_of_any_text_in_their_order(self, text: str) -> None:
        self.assertEqual([*dict.fromkeys(module._ascii_words(text))], [*dict.fromkeys(module._all_words(text))])

    @settings(max_examples=150, deadline=None)
    @given(any_octets(max_size=400) | st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join))
    def test_no_octets_make_it_raise_or_find_more_than_it_may(self, octets: bytes) -> None:
        found, tokens = reduced(octets, KEY, "mx.example.org")
        self.assertEqual(len(found.hashes), len(tokens))
        self.assertLessEqual(len(set(tokens)), TOKENS_MOST)
        self.assertTrue(all(0 < len(token) <= 60 for token in tokens))
        self.assertTrue(all(-(1 << 63) <= one < 1 << 63 for one in found.hashes))
        self.assertEqual(found, reduced(octets, KEY, "mx.example.org")[0])

    def test_the_longest_texts_come_to_an_end(self) -> None:
        """Work that grows with the square of the length would take hours for these: the runner would give the test up."""
        random = Random(1)
        parts = [b"", *[b"".join(random.choices(PIECES, k=4)) for _ in range(4)]]
        for unit in (*PIECES, *parts[1:], b"--b\r\n\r\nx\r\n"):
            for kind in (b"text/html; charset=utf-8", b"multipart/mixed; boundary=b"):
                head = b"Content-Type: " + kind + b"\r\n\r\n"
                found = tokens_of(head + (unit * READ_OCTETS)[:READ_OCTETS])
                self.assertLessEqual(len(found), TOKENS_MOST)

    def test_of_a_file_its_start_is_read_however_little_comes_at_once(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"Subject: x\n\n" + b"y" * 2 * READ_OCTETS)
        for piece in (READ_OCTETS, 100_000, 70_001):
            with open(path, "rb") as file, mock.patch("os.read", lambda fd, most, read=os.read, piece=piece: read(fd, min(most, piece))):
                found = start_of(file.fileno())
            self.assertEqual(found, b"Subject: x\r\n\r\n".ljust(READ_OCTETS + 2, b"y"), piece)

    def test_the_key_and_the_identity_of_a_message_are_in_its_hashes(self) -> None:
        message = b"Message-ID: <1@x>\r\nSubject: hello\r\n\r\nwords and more words\r\n"
        one, _ = reduced(message, KEY)
        self.assertEqual(set(reduced(message, b"o" * 32)[0].hashes) & set(one.hashes), set())
        added = b"Received: from x by mx.example.org with SMTP id 01ABCDEFGHJKMNPQ\r\n" + message
        self.assertEqual(reduced(added, KEY, "mx.example.org")[0].digest, one.digest)
        self.assertEqual(reduced(added, KEY, "mx.example.org")[0].id, "01ABCDEFGHJKMNPQ")
        self.assertEqual(reduced(added, KEY, "mx.example.net")[0].id, "")
        self.assertNotEqual(reduced(message.replace(b"<1@x>", b"<2@x>"), KEY)[0].digest, one.digest)


def counted(spam: float, ham: float) -> TokenCounts:
    return TokenCounts("word", spam, ham, spam + ham)


class Weighing(SynchronousTestCase):
    def test_a_token_seen_in_one_kind_alone_speaks_for_it_and_more_so_the_oftener(self) -> None:
        learned = Learned(100, 100)
        seldom, often = strength(counted(1, 0), learned), strength(counted(30, 0), learned)
        self.assertTrue(0.5 < seldom < often < 1)
        self.assertAlmostEqual(strength(counted(0, 30), learned), 1 - often)
        self.assertEqual(strength(counted(0, 0), learned), 0.5)
        self.assertAlmostEqual(strength(counted(10, 10), learned), 0.5)

    def test_ten_times_as_much_spam_learnt_makes_no_word_spam(self) -> None:
        self.assertAlmostEqual(strength(counted(100, 10), Learned(1000, 100)), 0.5)

    def test_a_token_that_weighs_more_is_not_seen_oftener_by_that(self) -> None:
        once = strength(TokenCounts("word", 10, 0, 1), Learned(100, 100))
        self.assertEqual(once, strength(counted(1, 0), Learned(100, 100)))

    def test_chi_square_is_that_of_the_tables(self) -> None:
        for value, freedom, probability in ((3.841 * 0, 2, 1.0), (5.991, 2, 0.05), (18.307, 10, 0.05), (124.342, 100, 0.05)):
            self.assertAlmostEqual(chi_square(value, freedom), probability, 4)
        self.assertEqual(chi_square(1e6, 300), 0.0)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.floats(0.0001, 0.9999), max_size=150))
    def test_the_answer_is_a_probability_and_its_opposite_that_of_the_opposite(self, values: list[float]) -> None:
        found = fisher(values)
        self.assertTrue(0 <= found <= 1)
        self.assertAlmostEqual(found, 1 - fisher([1 - one for one in values]), 6)

    def test_what_speaks_both_ways_is_near_a_half(self) -> None:
        self.assertAlmostEqual(fisher([0.99] * 20 + [0.01] * 20), 0.5)
        self.assertEqual(fisher([]), 0.5)

    def test_ten_tokens_are_named_those_that_say_the_most_first(self) -> None:
        counts = [TokenCounts(f"w{n:02}", n, 0, n) for n in range(1, 40)]
        found = weigh(counts, Learned(50, 50))
        self.assertEqual([token for token, _ in found.named], [f"w{n}" for n in range(39, 29, -1)])
        self.assertEqual(found.counted, 39)
        self.assertGreater(found.probability, 0.99)

    def test_the_score_is_nothing_around_a_half(self) -> None:
        found = [score_of(one, spam=6.5, ham=-2.0) for one in (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)]
        self.assertEqual(found, [-2.0, -1.0, 0.0, 0.0, 0.0, 3.25, 6.5])


class Keys(SynchronousTestCase):
    def test_a_key_is_made_once_for_its_owner_alone(self) -> None:
        folder = os.path.join(self.mktemp(), "keys")
        key = secret_key(folder, "bayes.key")
        self.assertEqual((secret_key(folder, "bayes.key"), len(key)), (key, 32))
        self.assertEqual(os.stat(os.path.join(folder, "bayes.key")).st_mode & 0o777, 0o400)
        self.assertNotEqual(secret_key(folder, "other.key"), key)

    def test_a_file_that_is_no_key_is_said_and_left_as_it_is(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        for text in ("", "short", "x" * 64, "a" * 63):
            with open(os.path.join(folder, "k"), "w") as file:
                file.write(text)
            self.assertRaises(NoKey, secret_key, folder, "k")
            with open(os.path.join(folder, "k")) as file:
                self.assertEqual(file.read(), text)
        self.assertRaises(FileNotFoundError, secret_key, folder, "missing", makes=False)
