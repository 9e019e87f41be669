"""Hypothesis strategies for what a component is given.  They need hypothesis, which the server itself does not: so import this
module by its name, `mailserver.testing.strategies`.

    @given(strategies.messages())
    def test_every_message_has_a_verdict(self, message): …
"""

from __future__ import annotations

import string

from hypothesis import strategies as st

from mailserver.mail.address import Address
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Peer, Recipient, TLSFacts

__all__ = ["addresses", "contents", "domains", "envelopes", "messages", "peers", "recipients"]

LABEL = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=12)
ATOM = st.text(string.ascii_letters + string.digits + "!#$%&'*+-/=?^_`{|}~", min_size=1, max_size=20)
QUOTED = st.text("".join(map(chr, range(32, 127))), min_size=1, max_size=20)  # RFC 5321 section 4.1.2
UTF8 = st.text("äöüßéçñøŁжйΩλאبहक例子用户ー", min_size=1, max_size=10)
FIELD_NAMES = ("From", "To", "Subject", "Date", "Message-ID", "Content-Type", "Received", "X-Odd", "x-odd", "DKIM-Signature")
TYPES = ("text/plain", "text/html; charset=utf-8", "application/octet-stream", "message/rfc822", "image/png", "nonsense", "")
ENCODINGS = ("7bit", "8bit", "base64", "quoted-printable", "x-none", "")


def _octets(most: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.integers(0, 255), max_size=most).map(bytes)


@st.composite
def domains(draw: st.DrawFn) -> str:
    """A domain of two to four labels, or an address literal."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(["[192.0.2.1]", "[IPv6:2001:db8::1]"]))
    return ".".join([*draw(st.lists(LABEL, min_size=1, max_size=3)), "example"])


@st.composite
def addresses(draw: st.DrawFn, *, utf8: bool = True) -> Address:
    """An address that SMTP lets through: dot-atoms, quoted strings and, with `utf8`, names that are not ASCII."""
    kinds = [ATOM, st.lists(ATOM, min_size=2, max_size=3).map(".".join), QUOTED, *([UTF8] if utf8 else [])]
    return Address(draw(st.one_of(kinds)), draw(domains()))


@st.composite
def peers(draw: st.DrawFn) -> Peer:
    """A peer at any time of its connection: before and after EHLO, TLS, a login."""
    hello = draw(st.sampled_from(["", "client.example.net", "[192.0.2.25]", "localhost", "x" * 255]))
    return Peer(
        draw(st.sampled_from(["192.0.2.25", "2001:db8::25", "unix", "local", "proxy:192.0.2.1"])),
        draw(st.integers(0, 65535)),
        draw(st.sampled_from(["mx", "submission", "lmtp"])),
        hello,
        draw(st.sampled_from(["EHLO", "HELO", "LHLO"])) if hello else "",
        draw(st.none() | st.just(TLSFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256"))),
        draw(st.sampled_from(["", "alice@example.org"])),
    )


def recipients() -> st.SearchStrategy[Recipient]:
    """A forward-path."""
    return st.builds(Recipient, addresses())


@st.composite
def envelopes(draw: st.DrawFn, *, recipients_least: int = 1) -> Envelope:
    """An envelope; its sender may be None."""
    return Envelope(
        draw(st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=16, max_size=16)),
        draw(peers()),
        draw(st.none() | addresses()),
        tuple(draw(st.lists(recipients(), min_size=recipients_least, max_size=max(4, recipients_least)))),
        draw(st.floats(1.6e9, 2e9)),
        MailParameters(body=draw(st.sampled_from(["7BIT", "8BITMIME"])), smtputf8=draw(st.booleans())),
    )


@st.composite
def messages(draw: st.DrawFn, *, depth: int = 3) -> bytes:
    """A message with CRLF line ends: fields in any order and number, MIME parts in each other, broken ones among them."""
    fields = draw(st.lists(st.tuples(st.sampled_from(FIELD_NAMES), _octets(40)), max_size=6))
    head = b"".join([name.encode() + b": " + _line(value) + b"\r\n" for name, value in fields])
    return head + draw(_entity(depth))


@st.composite
def _entity(draw: st.DrawFn, depth: int) -> bytes:
    if depth and draw(st.booleans()):
        boundary = draw(st.text(string.ascii_letters, min_size=1, max_size=8)).encode()
        parts = draw(st.lists(_entity(depth - 1), max_size=3))
        end = draw(st.sampled_from([b"--", b"", b"x"]))
        text = b"".join([b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts]) + b"--" + boundary + end + b"\r\n"
        return b"Content-Type: multipart/mixed; boundary=" + boundary + b"\r\n\r\n" + text
    kind, encoding = draw(st.sampled_from(TYPES)).encode(), draw(st.sampled_from(ENCODINGS)).encode()
    body = b"\r\n".join([_line(one) for one in draw(st.lists(_octets(60), max_size=4))])
    return b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n" + body + b"\r\n"


def _line(octets: bytes) -> bytes:
    return octets.replace(b"\r", b" ").replace(b"\n", b" ")


def contents() -> st.SearchStrategy[Content]:
    """A message as a component is given it."""
    return messages().map(Content.of)
