"""Delivery status notifications: what became of a message, told to its sender.

A report is a multipart/report (RFC 6522): words for people, fields for programs (RFC 3464), and the header of the message, or all
of it where a failure is told and RET=FULL asked for it (RFC 3461 section 4.3).

A report is never lost because a host does not take its content.  It is ASCII from end to end: what it returns is encoded by
part, or is the header alone where that cannot be.  Only a sender who has an address outside ASCII himself, whom SMTPUTF8
alone reaches, gets the forms of RFC 6533, and each of them only where a field needs it.

    failure   never without FAILURE in a NOTIFY that is there
    delay     never without DELAY in a NOTIFY that is there; so is the one that says that a copy is held
    success   only with SUCCESS; "relayed" where the next host takes no reports upon itself
    nothing   to the null reverse-path, ever (RFC 3461 section 4.1; RFC 5321 section 4.5.5)

The words of peers and what the sender gave (ENVID, ORCPT) cannot end a field or a part: controls become "?", long texts are
cut and folded, and the boundary is one that the message does not hold.
"""

from __future__ import annotations

import binascii
import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mailserver.mail.address import Address, AddressError
from mailserver.mail.content import Content
from mailserver.mail.eight_bit import Channel, Unconvertible, conversion_of
from mailserver.mail.envelope import Envelope, MailParameters, Recipient
from mailserver.mail.headers import Headers
from mailserver.mail.reply import Reply
from mailserver.mail.source import MemorySource
from mailserver.mail.trace import date_time

__all__ = [
    "Original",
    "RecipientReport",
    "delay_report",
    "failure_report",
    "hold_report",
    "original_of",
    "parameters_for",
    "success_report",
    "wants",
]

WHOLE_OCTETS_MOST = 51_200  # of a message that is returned whole; a larger one comes as its header
HEADER_OCTETS_MOST = 32_768
RECIPIENTS_MOST = 1000  # in one report
TEXT_CHARACTERS_MOST = 900  # of a peer's answer
EXPLANATION_LINES_MOST = 100
WORD_CHARACTERS_MOST = 240  # four octets each at most: a line never passes the 998 octets of RFC 5322 section 2.1.1
LINE_OCTETS_MOST = 998
LINE_CHARACTERS = 76
SEVEN_BIT = Channel(eight_bit=False)
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
BROKEN_LINE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\x00")
STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")  # RFC 3463 section 2
MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")
ADDRESS_TYPE = re.compile(r"[A-Za-z0-9\-]{1,64}")
NOT_PLAIN = re.compile(r"[^!-*,-<>-\[\]-~]")  # RFC 6533 section 3: what a utf-8-addr-xtext writes as \x{…}


class Action(enum.StrEnum):
    """RFC 3464 section 2.3.3."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"


@dataclass(frozen=True, slots=True)
class RecipientReport:
    """What became of one recipient.

    `reply` is the last answer, `peer` the host that gave it ("": this one), `tried_at` the time of the last attempt in seconds
    since the epoch.  `partly`: the address stands for several, and this is true of one of them.  `expired`: its time was over.
    `relayed`: a next host has it that sends no reports.
    """

    recipient: Recipient
    reply: Reply | None = None
    peer: str = ""
    tried_at: float | None = None
    partly: bool = False
    expired: bool = False
    relayed: bool = False


@dataclass(frozen=True, slots=True)
class Original:
    """The message that is reported on: its envelope, and its header section or (`whole`) all its octets."""

    envelope: Envelope
    octets: bytes
    whole: bool


def wants(recipient: Recipient, condition: str) -> bool:
    """Whether a report on "FAILURE", "DELAY" or "SUCCESS" is to be sent (RFC 3461 section 4.1).

    Without NOTIFY we report failures and delays.
    """
    notify = recipient.parameters.notify
    return condition in notify if notify is not None else condition != "SUCCESS"


def original_of(envelope: Envelope, content: Content) -> Original:
    """Read what a report returns: blocks where the content is a file.  Raises OSError.

    The whole message only where RET=FULL asks for it, REQUIRETLS does not forbid it (RFC 8689 section 5), it is small, and a mail
    body can hold it as it is (its lines no longer than 998 octets, no binary data): message/rfc822 must not be encoded.
    """
    parameters = envelope.parameters
    if parameters.ret == "FULL" and not parameters.requiretls and not content.binary and content.size <= WHOLE_OCTETS_MOST:
        octets = b"".join(content.chunks())
        if BROKEN_LINE.search(octets) is None and max(map(len, octets.split(b"\r\n"))) <= LINE_OCTETS_MOST:
            return Original(envelope, octets, True)
    return Original(envelope, _header_only(content.head), False)


def parameters_for(report: bytes, sender: Address, *, requiretls: bool = False) -> MailParameters:
    """The MAIL parameters with which a report travels to the sender that it is for.  `requiretls`: the original had it."""
    return MailParameters(
        body="7BIT" if report.isascii() else "8BITMIME",
        smtputf8=_takes_utf8(sender),
        requiretls=requiretls,  # RFC 8689 section 5
    )


def failure_report(
    original: Original,
    recipients: Sequence[RecipientReport],
    *,
    id: str,
    hostname: str,
    made_at: float,
    explanation: str = "",
) -> bytes:
    """The message that says that recipients were not reached and will not be.

    `id` is the report's own message id, `hostname` this server's name, `made_at` the time in seconds since the epoch.
    `explanation` is put before our own words.  Raises ValueError for an original with the null reverse-path, or without
    recipients.
    """
    return _Writing(original, id, hostname, made_at, explanation).report(
        [(one, Action.FAILED) for one in recipients], subject="Your message was not delivered", retry_until=None
    )


def delay_report(
    original: Original,
    recipients: Sequence[RecipientReport],
    *,
    id: str,
    hostname: str,
    made_at: float,
    retry_until: float,
    explanation: str = "",
) -> bytes:
    """The message that says that recipients have not been reached yet; `retry_until` is when it will be given up."""
    writing = _Writing(_header_of(original), id, hostname, made_at, explanation)
    pairs = [(one, Action.DELAYED) for one in recipients]
    return writing.report(pairs, subject="Your message is delayed", retry_until=retry_until)


def hold_report(
    original: Original,
    recipients: Sequence[RecipientReport],
    *,
    id: str,
    hostname: str,
    made_at: float,
    held_until: float | None,
    explanation: str = "",
) -> bytes:
    """The message that says that copies are held by this host.  `held_until` is when they are discarded, None for never."""
    writing = _Writing(_header_of(original), id, hostname, made_at, explanation)
    ends = f" What is not released by {date_time(int(held_until))} is discarded." if held_until is not None else ""
    writing.waits = f"It is held, and goes on when the postmaster of this server releases it.{ends}"
    return writing.report([(one, Action.DELAYED) for one in recipients], subject="Your message is held", retry_until=None)


def success_report(
    original: Original,
    recipients: Sequence[RecipientReport],
    *,
    id: str,
    hostname: str,
    made_at: float,
    explanation: str = "",
) -> bytes:
    """The message that says that recipients were reached, or that a host that sends no reports has taken the message on."""
    pairs = [(one, Action.RELAYED if one.relayed else Action.DELIVERED) for one in recipients]
    subject = "Your message was passed on" if any(one.relayed for one in recipients) else "Your message was delivered"
    writing = _Writing(_header_of(original), id, hostname, made_at, explanation)
    return writing.report(pairs, subject=subject, retry_until=None)


Pairs = list[tuple[RecipientReport, Action]]


class _Writing:
    """One report while it is written."""

    def __init__(self, original: Original, id: str, hostname: str, made_at: float, explanation: str = "") -> None:
        sender = original.envelope.sender
        if sender is None:
            raise ValueError("the null reverse-path gets no reports")
        takes_utf8 = _takes_utf8(sender)
        if not original.whole:  # whoever read it: no line end of its own may end a line of ours
            original = replace(original, octets=_header_only(original.octets))
        self.original = original if takes_utf8 else _in_ascii(original)
        self.envelope = original.envelope
        self.sender = sender if takes_utf8 else _with_ascii_domain(sender)
        self.may_be_global = takes_utf8 and original.envelope.parameters.smtputf8
        self.id = id
        self.hostname = hostname
        self.made_at = made_at
        self.explanation = explanation
        self.is_global = False  # the status part
        self.waits = ""  # what holds up a delayed one, where it is not the next host

    def report(self, pairs: Pairs, *, subject: str, retry_until: float | None) -> bytes:
        """The whole message, with CRLF line ends."""
        if not pairs:
            raise ValueError("a report needs a recipient")
        rest = max(0, len(pairs) - RECIPIENTS_MOST)
        pairs = pairs[:RECIPIENTS_MOST]
        self.is_global = self.may_be_global and not _are_ascii(pairs)
        boundary = b"report-" + self.id.encode()
        while boundary in self.original.octets:
            boundary += b"x"
        parts = (self._words(pairs, rest, retry_until), self._status(pairs, retry_until), self._returned())
        return b"".join(
            [
                self._header(subject, boundary.decode()),
                b"This is a delivery report in several parts.\r\n",
                *[b"\r\n--" + boundary + b"\r\n" + part for part in parts],
                b"\r\n--" + boundary + b"--\r\n",
            ]
        )

    # --- the parts ---

    def _header(self, subject: str, boundary: str) -> bytes:
        lines = [
            f'From: "Mail Delivery System" <MAILER-DAEMON@{self.hostname}>',
            f"To: <{_clean(str(self.sender))}>",
            f"Subject: {subject}",
            f"Date: {date_time(int(self.made_at))}",
            f"Message-ID: <{self.id}@{self.hostname}>",
            *self._references(),
            "Auto-Submitted: auto-replied",  # RFC 3834 section 5
            "MIME-Version: 1.0",
            f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
        ]
        return _block(lines) + b"\r\n"

    def _references(self) -> list[str]:
        """So that a mail program shows the report beside the message."""
        message_id = (Headers.parse(self.original.octets[:HEADER_OCTETS_MOST]).get("Message-ID") or "").strip()
        if MESSAGE_ID.fullmatch(message_id) is None:
            return []
        return [f"In-Reply-To: {message_id}", f"References: {message_id}"]

    def _words(self, pairs: Pairs, rest: int, retry_until: float | None) -> bytes:
        """The part for people."""
        lines = [*self._explained(), f"This is the mail server {self.hostname}.", ""]
        for action, opening, closing in self._phrases(retry_until):
            found = [one for one, its in pairs if its is action]
            if found:
                lines += [*_wrap(opening), ""]
                for one in found:
                    lines += _about(one, action)
                lines += [*_wrap(closing), ""]
        if rest:
            lines += [f"The same is true of {rest} more recipients.", ""]
        returned = "your whole message" if self.original.whole else "the header of your message"
        lines += _wrap(
            f"The next part of this report says this in a form for programs; the last one holds {returned}. "
            f"If you ask postmaster@{self.hostname} about it, please give the number {self.envelope.id}."
        )
        body = _block(lines)
        return _text_header("text/plain", body) + _encoded(body)

    def _explained(self) -> list[str]:
        """What somebody else has to say of it, line by line, without anything that could end a line of ours."""
        lines: list[str] = []
        for line in self.explanation.splitlines()[:EXPLANATION_LINES_MOST]:
            lines += _wrap(_clean(line)) or [""]
        return [*lines, ""] if lines else []

    def _phrases(self, retry_until: float | None) -> list[tuple[Action, str, str]]:
        came = f"Your message of {date_time(int(self.envelope.received_at))}"
        until = date_time(int(retry_until)) if retry_until is not None else ""
        return [
            (Action.FAILED, f"{came} could not be delivered to:", "It will not be tried again."),
            (
                Action.DELAYED,
                f"{came} has not yet reached:",
                self.waits
                or f"You need not send it again: it is tried again and again until {until}. "
                "If it has not been delivered by then, you will be told.",
            ),
            (Action.DELIVERED, f"{came} was delivered to:", "You asked to be told."),
            (
                Action.RELAYED,
                f"{came} was passed on for:",
                "The next server sends no reports of success; you may hear no more of it.",
            ),
        ]

    def _status(self, pairs: Pairs, retry_until: float | None) -> bytes:
        """The part for programs: RFC 3464 section 2, in UTF-8 RFC 6533 section 4."""
        lines = [f"Reporting-MTA: dns; {self.hostname}"]
        if self.envelope.parameters.envid:
            lines.insert(0, f"Original-Envelope-Id: {_clean(self.envelope.parameters.envid)}")
        lines.append(f"Arrival-Date: {date_time(int(self.envelope.received_at))}")
        for one, action in pairs:
            lines += ["", *self._fields(one, action, retry_until)]
        body = _block(lines)
        if self.is_global:
            return b"Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + body
        return b"Content-Type: message/delivery-status\r\n\r\n" + body

    def _fields(self, one: RecipientReport, action: Action, retry_until: float | None) -> Iterable[str]:
        orcpt = one.recipient.parameters.orcpt
        if orcpt is not None:
            yield f"Original-Recipient: {self._typed(*orcpt)}"
        address = str(one.recipient.address)
        yield f"Final-Recipient: {self._typed('rfc822' if address.isascii() else 'utf-8', address)}"
        yield f"Action: {action}"
        yield f"Status: {_status_of(one, action)}"
        if one.peer:
            yield f"Remote-MTA: dns; {self._text(one.peer)[:WORD_CHARACTERS_MOST]}"
        if one.reply is not None and action in (Action.FAILED, Action.DELAYED):
            kind = "smtp" if one.peer else "x-mailserver"
            yield _folded(f"Diagnostic-Code: {kind}; {self._text(_said(one.reply))}")
        if one.tried_at is not None:
            yield f"Last-Attempt-Date: {date_time(int(one.tried_at))}"
        if action is Action.DELAYED and retry_until is not None:
            yield f"Will-Retry-Until: {date_time(int(retry_until))}"

    def _returned(self) -> bytes:
        """The message, or its header."""
        octets = self.original.octets
        if self.original.whole:
            kind = b"message/global" if self.may_be_global and not _has_ascii_header(octets) else b"message/rfc822"
            encoding = b"7bit" if octets.isascii() else b"8bit"
            return b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n" + octets
        if self.may_be_global and not octets.isascii():
            octets = octets.decode("utf-8", "replace").encode()
            return b"Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + octets
        return _text_header("text/rfc822-headers", octets) + _encoded(octets)

    # --- texts ---

    def _typed(self, kind: str, address: str) -> str:
        """An address with its type.  Outside ASCII it stands as it is in UTF-8 only, else as RFC 6533 section 3 writes it."""
        kind = kind if ADDRESS_TYPE.fullmatch(kind) else "unknown"
        address = _clean(address)
        if kind.lower() == "utf-8" and not self.is_global:
            address = NOT_PLAIN.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", address)
        return f"{kind}; {self._text(address)}"

    def _text(self, text: str) -> str:
        """Fit for a field of the status part."""
        return _clean(text) if self.is_global else _clean(text).encode("ascii", "replace").decode()


def _takes_utf8(sender: Address) -> bool:
    """Only an address that takes SMTPUTF8 to reach shows that its owner can read what it brings; a domain has A-labels."""
    return not sender.local.isascii()


def _with_ascii_domain(sender: Address) -> Address:
    try:
        return Address(sender.local, sender.domain_key)
    except AddressError:
        return sender


def _are_ascii(pairs: Pairs) -> bool:
    texts: list[str] = []
    for one, _ in pairs:
        texts.append(str(one.recipient.address))
        texts += one.recipient.parameters.orcpt or ()
        texts += one.reply.lines if one.reply is not None else ()
    return all(map(str.isascii, texts))


def _in_ascii(original: Original) -> Original:
    """What is returned whole, with its parts encoded where they need it; its header where that does not make it ASCII."""
    if not original.whole or original.octets.isascii():
        return original
    try:
        conversion = conversion_of(MemorySource(original.octets), SEVEN_BIT)
    except Unconvertible:
        conversion = None
    octets = b"".join(conversion.chunks()) if conversion is not None else original.octets
    return replace(original, octets=octets) if octets.isascii() else _header_of(original)


def _header_of(original: Original) -> Original:
    """RFC 3461 section 4.3: the whole message goes with reports of failure only."""
    if not original.whole:
        return original
    end = original.octets.find(b"\r\n\r\n")
    return Original(original.envelope, _header_only(original.octets[: end + 2] if end >= 0 else original.octets), False)


def _header_only(head: bytes) -> bytes:
    """A header section fit for a text part: without its empty line, cut after a whole field, without broken line ends."""
    if len(head) > HEADER_OCTETS_MOST:
        cut = head[:HEADER_OCTETS_MOST]
        ends = [found.start() for found in re.finditer(rb"\r\n(?![ \t])", cut)]
        head = cut[: ends[-1]] if ends else cut
    return BROKEN_LINE.sub(b"?", head).rstrip(b"\r\n") + b"\r\n"


def _has_ascii_header(octets: bytes) -> bool:
    end = octets.find(b"\r\n\r\n")
    return (octets if end < 0 else octets[:end]).isascii()


def _status_of(one: RecipientReport, action: Action) -> str:
    """RFC 3464 section 2.3.4: the enhanced code of the reply, or the class of its basic code."""
    if action in (Action.DELIVERED, Action.RELAYED):
        return "2.0.0"
    if one.reply is None:
        return "4.4.7" if one.expired or action is Action.DELAYED else "5.0.0"
    if STATUS.fullmatch(one.reply.enhanced) and not one.reply.enhanced.startswith("2"):
        return one.reply.enhanced
    return "5.0.0" if one.reply.is_permanent else "4.0.0"


def _about(one: RecipientReport, action: Action) -> list[str]:
    """The lines for people on one recipient."""
    lines = [f"    {_clean(str(one.recipient.address))}"]
    if one.partly:
        lines.append("        (one of the addresses that it stands for)")
    if action in (Action.FAILED, Action.DELAYED):
        if one.expired:
            lines.append("        It was tried again and again until its time was over.")
        if one.reply is not None:
            who = f"The server {_clean(one.peer)[:WORD_CHARACTERS_MOST]} said:" if one.peer else "The reason:"
            lines.append(f"        {who}")
            lines += [f"            {line}" for line in _wrap(_clean(_said(one.reply)), LINE_CHARACTERS - 12)]
    return [*lines, ""]


def _said(reply: Reply) -> str:
    status = f" {reply.enhanced}" if reply.enhanced else ""
    text = " ".join(line[:TEXT_CHARACTERS_MOST] for line in reply.lines[:20]).strip()
    return f"{reply.code}{status} {text}"[:TEXT_CHARACTERS_MOST]


def _clean(text: str) -> str:
    return CONTROLS.sub("?", text)


def _wrap(text: str, characters: int = LINE_CHARACTERS) -> list[str]:
    """Lines of so many characters at most, but for longer words; a word that no line could hold is cut in pieces."""
    lines: list[str] = []
    for word in text.split():
        for start in range(0, len(word), WORD_CHARACTERS_MOST):
            piece = word[start : start + WORD_CHARACTERS_MOST]
            if lines and len(lines[-1]) + 1 + len(piece) <= characters:
                lines[-1] += " " + piece
            else:
                lines.append(piece)
    return lines


def _folded(field: str) -> str:
    """RFC 5322 section 2.2.3."""
    return "\r\n\t".join(_wrap(field, LINE_CHARACTERS - 8))


def _block(lines: Sequence[str]) -> bytes:
    return "".join([line + "\r\n" for line in lines]).encode()


def _text_header(kind: str, body: bytes) -> bytes:
    charset = "us-ascii" if body.isascii() else "utf-8" if _is_utf8(body) else "unknown-8bit"  # RFC 1428 section 3
    encoding = "7bit" if _fits_7bit(body) else "quoted-printable"
    return f"Content-Type: {kind}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


def _encoded(body: bytes) -> bytes:
    return body if _fits_7bit(body) else binascii.b2a_qp(body)


def _fits_7bit(body: bytes) -> bool:
    return body.isascii() and max(map(len, body.split(b"\r\n"))) <= LINE_OCTETS_MOST
