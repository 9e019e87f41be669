"""Header fields and bodies in the forms that are signed (RFC 6376 section 3.4)."""

from __future__ import annotations

import hashlib
import itertools
import re
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.content import Content
from mailserver.trust.canonical import BodyHash, body_chunks, canonical_field

PIECES = st.lists(st.sampled_from(["a", " ", "\t", "\r\n", "\r\n", "xy z", "  b"]), max_size=30)


def relaxed(body: bytes) -> bytes:
    """Section 3.4.4, as it is written there."""
    body = re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", body)
    body = re.sub(rb"[ \t]+", b" ", body)
    body = re.sub(rb"(\r\n)+\Z", b"\r\n", body)
    if body == b"\r\n":
        return b""
    return body if not body or body.endswith(b"\r\n") else body + b"\r\n"


def simple(body: bytes) -> bytes:
    """Section 3.4.3."""
    return re.sub(rb"(\r\n)*\Z", b"", body, count=1) + b"\r\n"


def hashed(form: str, *pieces: bytes, most: int | None = None) -> bytes:
    body = BodyHash("relaxed" if form == "relaxed" else "simple", most=most)
    for piece in pieces:
        body.update(piece)
    return body.digest()


class Fields(SynchronousTestCase):
    def test_the_example_of_the_rfc(self) -> None:
        """Section 3.4.5."""
        self.assertEqual(canonical_field(b"A: X ", "relaxed"), b"a:X")
        self.assertEqual(canonical_field(b"B : Y\t\r\n\tZ  ", "relaxed"), b"b:Y Z")
        self.assertEqual(canonical_field(b"B : Y\t\r\n\tZ  ", "simple"), b"B : Y\t\r\n\tZ  ")


class Bodies(SynchronousTestCase):
    def test_the_example_of_the_rfc(self) -> None:
        """Section 3.4.5."""
        body = b" C \r\nD \t E\r\n\r\n\r\n"
        self.assertEqual(hashed("relaxed", body), hashlib.sha256(b" C\r\nD E\r\n").digest())
        self.assertEqual(hashed("simple", body), hashlib.sha256(b" C \r\nD \t E\r\n").digest())

    def test_an_empty_body(self) -> None:
        """Sections 3.4.3 and 3.4.4."""
        for body in (b"", b"\r\n", b"\r\n\r\n\r\n"):
            self.assertEqual(hashed("relaxed", body), hashlib.sha256(b"").digest(), body)
            self.assertEqual(hashed("simple", body), hashlib.sha256(b"\r\n").digest(), body)

    @given(PIECES, st.lists(st.integers(0, 60), max_size=6))
    def test_any_split_gives_what_the_rfc_says_of_the_whole(self, pieces: list[str], places: list[int]) -> None:
        body = "".join(pieces).encode()
        cuts = [0, *sorted(places), len(body)]
        parts = [body[start:end] for start, end in itertools.pairwise(cuts)]
        self.assertEqual(hashed("relaxed", *parts), hashlib.sha256(relaxed(body)).digest())
        self.assertEqual(hashed("simple", *parts), hashlib.sha256(simple(body)).digest())

    @given(PIECES, st.integers(0, 60))
    def test_a_length_cuts_the_form_and_not_the_body(self, pieces: list[str], most: int) -> None:
        body = "".join(pieces).encode()
        self.assertEqual(hashed("relaxed", body, most=most), hashlib.sha256(relaxed(body)[:most]).digest())

    def test_megabytes_of_blank_lines_or_blanks_take_neither_memory_nor_time(self) -> None:
        lines, blanks, both = b"\r\n" * 32_768, b" " * 65_536, b"\r\n\r\n \r\n" * 10_000
        for form, piece, wanted in (
            ("relaxed", lines, lines * 160), ("simple", lines, lines * 160), ("relaxed", blanks, b" "),
            ("relaxed", both, b"\r\n" * 30_000 * 160),
        ):  # fmt: skip
            body = BodyHash("relaxed" if form == "relaxed" else "simple")
            tracemalloc.start()
            for _ in range(160):  # ten megabytes
                body.update(piece)
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.assertLess(most, 2_000_000)
            body.update(b"x")
            self.assertEqual(body.digest(), hashlib.sha256(wanted + b"x\r\n").digest())

    def test_a_body_begins_behind_the_empty_line_wherever_the_header_stands(self) -> None:
        head, body = b"From: a@b.example\r\nSubject: x\r\n\r\n", b"one\r\n\r\ntwo\r\n"
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(head + body)
        contents = (
            Content.of(head + body),
            Content.of(head + body, prefix=b"X: y\r\n"),
            Content.at(path, len(head + body), prefix=b"X: y\r\n"),
            Content.at(path, len(head + body), prefix=head, skip=len(head)),
        )
        for content in contents:
            self.assertEqual(b"".join(body_chunks(content)), body)
