"""Trace fields: Received, Return-Path, Delivered-To (RFC 5321 section 4.4).

    Stamp            = From-domain By-domain Opt-info [CFWS] ";" FWS date-time
    From-domain      = "FROM" FWS Extended-Domain
    Extended-Domain  = Domain / ( Domain FWS "(" TCP-info ")" ) / ( address-literal FWS "(" TCP-info ")" )
    TCP-info         = address-literal / ( Domain FWS address-literal )
    Opt-info         = [Via] [With] [ID] [For] [Additional-Registered-Clauses]

What the peer says of itself (HELO) and what its DNS says of it go into the field with every octet replaced that could end the
field, a comment or a word: no peer can forge a trace.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache

from mailserver.mail.address import Address
from mailserver.mail.content import Content
from mailserver.mail.envelope import NO_ADDRESS, Envelope, Peer

__all__ = ["date_time", "delivered_to", "goes_round", "message_id", "received", "with_protocol"]

LINE_OCTETS = 78  # RFC 5322 section 2.1.1
LONG_HOSTNAME = 30  # leaves room on its line for "by", "with UTF8SMTPSA", "id" and an id, a tab being eight columns
NAME_OCTETS = 255  # RFC 5321 section 4.5.3.1.2
NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9.\-_:\[\]]")
NOT_IN_A_COMMENT = re.compile(r"[^ -'*-\[\]-~]")  # RFC 5322 section 3.2.2: ctext
MESSAGE_ID = re.compile(rb"\n[Mm][Ee][Ss][Ss][Aa][Gg][Ee]-[Ii][Dd][ \t]*:[ \t]*(?:\r\n[ \t]+)?([^\r\n]{1,250})")
RECEIVED = re.compile(rb"\nreceived[ \t]*:")  # RFC 5322 section 4.5: blanks before the colon
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def received(envelope: Envelope, *, hostname: str, reverse_name: str = "", hide_client: bool = False) -> bytes:
    """The Received field for a message that this host takes in, CRLF included.

    `hostname` is our name, `reverse_name` the client's name where the DNS confirms it.  The *for* clause appears only where
    there is exactly one recipient (section 7.6: it would give away the others) whose address is ASCII, since the field must
    not be what makes a message need SMTPUTF8 on its next hop; the *tls* clause of RFC 8314 section 4.3 on an encrypted
    connection.  `hide_client` keeps a submitting user's address and host out.
    """
    peer = envelope.peer
    if peer.address == "local":
        return _handed_over(envelope, hostname)
    origin = "client.invalid (hidden)" if hide_client else _origin(peer.hello, peer.address, reverse_name)
    fold = "\r\n\t" if len(hostname) > LONG_HOSTNAME else " "
    clauses = f"by {hostname}{fold}with {with_protocol(peer, envelope.parameters.smtputf8)} id {envelope.id}"
    if len(envelope.recipients) == 1:
        address = envelope.recipients[0].address
        if address.is_ascii:
            clauses += f"\r\n\tfor <{_printable(address)}>"
    if peer.tls is not None:
        cipher = NOT_IN_A_NAME.sub("?", peer.tls.cipher) or "unknown"
        group = f" group {NOT_IN_A_NAME.sub('?', peer.tls.group)}" if peer.tls.group else ""
        clauses += f"\r\n\ttls {cipher}{group} ({NOT_IN_A_NAME.sub('?', peer.tls.version)})"
    return f"Received: from {origin}\r\n\t{clauses};\r\n\t{date_time(int(envelope.received_at))}\r\n".encode()


def _handed_over(envelope: Envelope, hostname: str) -> bytes:
    """The field for what a program of this host handed over without a dialogue: `hello` says which user's."""
    user = NOT_IN_A_COMMENT.sub("?", envelope.peer.hello)
    date = date_time(int(envelope.received_at))
    return f"Received: by {hostname} (from {user})\r\n\tid {envelope.id};\r\n\t{date}\r\n".encode()


def with_protocol(peer: Peer, smtputf8: bool) -> str:
    """The name for the *with* clause, as registered (RFC 3848; RFC 6531 section 4.3).

    HELO is SMTP whatever else is true: the registry has no other name for it.
    """
    if peer.hello_verb == "LHLO":
        name = "UTF8LMTP" if smtputf8 else "LMTP"
    elif peer.hello_verb == "EHLO":
        name = "UTF8SMTP" if smtputf8 else "ESMTP"
    else:
        return "SMTP"
    if peer.tls is not None:
        return name + ("SA" if peer.login else "S")
    return name + "A" if peer.login else name


def delivered_to(address: Address) -> bytes:
    """The Delivered-To field, by which a later delivery sees that mail goes round."""
    return f"Delivered-To: {_printable(address)}\r\n".encode()


def goes_round(content: Content, hops_most: int) -> bool:
    """It has more Received fields than that (RFC 5321 section 6.3: 100 or more mean that it goes round)."""
    head = content.lower_head
    # What begins like one, Received-SPF too: few, as a rule, and then nothing has to be looked at.
    if head.count(b"\r\nreceived") < hops_most:
        return False
    return len(RECEIVED.findall(b"\n" + head)) > hops_most


def message_id(content: Content) -> str | None:
    """The value of the Message-ID field as it stands there, cut after 250 octets; None where there is none."""
    head, lower = content.head, content.lower_head
    at = lower.find(b"\nmessage-id")
    found = MESSAGE_ID.search(head, at) if at >= 0 else None
    if found is None and lower.startswith(b"message-id"):
        found = MESSAGE_ID.match(b"\n" + head[:1024])
    return found[1].decode("utf-8", "replace").rstrip() if found is not None else None


@lru_cache(maxsize=2)  # a busy second asks for the same one thousands of times
def date_time(seconds: int) -> str:
    """RFC 5322 section 3.3, in UTC: ``Mon, 23 Nov 2026 01:02:03 +0000``.  `seconds` since the epoch."""
    t = time.gmtime(seconds)
    clock = f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}"
    return f"{DAYS[t.tm_wday]}, {t.tm_mday} {MONTHS[t.tm_mon - 1]} {t.tm_year:04d} {clock} +0000"


@lru_cache(maxsize=1024)  # a peer sends more than one message
def _origin(hello: str, numeric: str, reverse_name: str) -> str:
    """The Extended-Domain, folded where it is too long for one line after ``Received: from``."""
    hello = NOT_IN_A_NAME.sub("?", hello[:NAME_OCTETS]) or "unknown"
    name = NOT_IN_A_NAME.sub("?", reverse_name[:NAME_OCTETS]) + " " if reverse_name else ""
    if numeric.startswith(NO_ADDRESS):
        name, numeric = "proxy ", numeric.removeprefix(NO_ADDRESS)  # all that is known is who brought it
    if ":" in numeric:
        literal = f"[IPv6:{numeric.partition('%')[0]}]"  # a zone means nothing to others
    elif numeric == "unix":
        literal = "local socket"  # no TCP-info: a plain comment
    else:
        literal = f"[{numeric}]"
    folds = len(hello) + len(name) + len(literal) + len("Received: from  ()") > LINE_OCTETS
    return f"{hello}\r\n\t({name}{literal})" if folds else f"{hello} ({name}{literal})"


def _printable(address: Address) -> str:
    text = str(address)
    return text if text.isprintable() else CONTROLS.sub("?", text)
