"""An envelope and its destinations as octets, for a store.

The octets are one JSON array whose first member is the version.  Members stand by position, so a message's row stays small:

    [version, id, received_at, sender, parameters, peer, [recipient, ...], [destination, ...]]

    address      ["local", "domain"]                    null: the null reverse-path; a third member true: bare
    parameters   null, or [size, body, smtputf8, ret, envid, auth], and true behind them for REQUIRETLS (version 4)
    peer         [address, port, service, hello, hello_verb, tls, login]
    tls          null, or [version, cipher, server_name, client_certificate, client_verified], then client_fault, client_emails
    recipient    [address], or [address, notify, orcpt]
    destination  [index, recipient, route]              recipient: its position in the list before, or a recipient;
                 then true where it is named_by_index; then, from version 3 on, its lines as text; then, from version 5
                 on, true where it is quiet
    route        [address]: Remote; [address, user, domain, folder, system]: Local; then folder_must_exist, junk where one is
                 true; both, and the reader, where there is one

A change of the layout gets a new version number, and `decode_envelope` goes on reading the old ones: a store outlives a release.
In version 1 every destination is named_by_index.  Version 3 is written where a destination has lines of its own, so that an
earlier release reads all others; version 5 where one is quiet.
"""

from __future__ import annotations

import json
from typing import Any

from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Mailbox, Remote
from mailserver.mail.envelope import (
    NO_MAIL_PARAMETERS,
    NO_RECIPIENT_PARAMETERS,
    Envelope,
    MailParameters,
    Peer,
    Recipient,
    RecipientParameters,
    TLSFacts,
)
from mailserver.mail.json_text import json_text
from mailserver.mail.parcel import Destination

__all__ = ["UnknownVersion", "UnreadableEnvelope", "decode_envelope", "encode_envelope"]

VERSION = 2
WITH_LINES = 3
WITH_REQUIRETLS = 4  # releases that do not know it must not send the message on
WITH_QUIET = 5  # releases that do not know it would tell the sender
NEWEST = WITH_QUIET
NAMED_BY_INDEX = 1  # the last version whose releases named files in Maildirs so

# ASCII with \u escapes: a lone surrogate (undecodable octets of a peer) survives the journey too.
encode_json = json_text()


class UnreadableEnvelope(ValueError):
    """The octets are not an envelope."""


class UnknownVersion(UnreadableEnvelope):
    """The envelope was written by a later release."""


def encode_envelope(envelope: Envelope, destinations: tuple[Destination, ...]) -> bytes:
    """The octets to keep.  All that `decode_envelope` needs is in them."""
    peer = envelope.peer
    sender = envelope.sender
    positions = {id(recipient): n for n, recipient in enumerate(envelope.recipients)}
    row = (
        _version(envelope, destinations),
        envelope.id,
        envelope.received_at,
        None if sender is None else _address_row(sender),
        _mail_parameters_row(envelope.parameters),
        (peer.address, peer.port, peer.service, peer.hello, peer.hello_verb, _tls_row(peer.tls), peer.login),
        [_recipient_row(recipient) for recipient in envelope.recipients],
        [_destination_row(destination, positions) for destination in destinations],
    )
    return encode_json(row).encode("ascii")


def decode_envelope(octets: bytes) -> tuple[Envelope, tuple[Destination, ...]]:
    """What `encode_envelope` was given.  Raises `UnreadableEnvelope`; `UnknownVersion` where a later release wrote it."""
    try:
        row = json.loads(octets)
    except (ValueError, RecursionError) as error:
        raise UnreadableEnvelope(f"not JSON: {error}") from None
    if not isinstance(row, list) or not row or type(row[0]) is not int:
        raise UnreadableEnvelope("not an array that begins with a version")
    if not 1 <= row[0] <= NEWEST:
        raise UnknownVersion(f"the envelope has version {row[0]}; this release reads versions up to {NEWEST}")
    try:
        return _decoded(row)
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        raise UnreadableEnvelope(f"a member is missing or has the wrong type: {error}") from None


# --- values to rows ---


def _version(envelope: Envelope, destinations: tuple[Destination, ...]) -> int:
    version = WITH_REQUIRETLS if envelope.parameters.requiretls else VERSION
    for one in destinations:
        if one.quiet:
            return WITH_QUIET
        if one.lines:
            version = max(version, WITH_LINES)
    return version


def _mail_parameters_row(parameters: MailParameters) -> Any:
    if parameters is NO_MAIL_PARAMETERS or parameters == NO_MAIL_PARAMETERS:
        return None
    p = parameters
    row = (p.size, p.body, p.smtputf8, p.ret, p.envid, p.auth)
    return (*row, True) if p.requiretls else row


def _tls_row(tls: TLSFacts | None) -> Any:
    if tls is None:
        return None
    row = (tls.version, tls.cipher, tls.server_name, tls.client_certificate, tls.client_verified)
    return (*row, tls.client_fault, tls.client_emails) if tls.client_fault or tls.client_emails else row


def _address_row(address: Address) -> Any:
    return (address.local, address.domain, True) if address.bare else (address.local, address.domain)


def _recipient_row(recipient: Recipient) -> Any:
    address = recipient.address
    parameters = recipient.parameters
    if parameters is NO_RECIPIENT_PARAMETERS or parameters == NO_RECIPIENT_PARAMETERS:
        return (_address_row(address),)
    notify = None if parameters.notify is None else sorted(parameters.notify)
    return _address_row(address), notify, parameters.orcpt


def _destination_row(destination: Destination, positions: dict[int, int]) -> Any:
    recipient = destination.recipient
    route = destination.route
    address = _address_row(route.address)
    named: tuple[Any, ...] = (True,) if destination.named_by_index else ()
    if destination.quiet:
        named = (destination.named_by_index, destination.lines.decode("latin-1"), True)
    elif destination.lines:
        named = (destination.named_by_index, destination.lines.decode("latin-1"))
    place: Any = positions.get(id(recipient))
    if place is None:
        place = _recipient_row(recipient)
    if isinstance(route, Local):
        m = route.mailbox
        parts: Any = (address, m.user, m.domain, m.folder, m.system)
        if m.reader:
            parts = (*parts, m.folder_must_exist, m.junk, m.reader)
        elif m.folder_must_exist or m.junk:
            parts = (*parts, m.folder_must_exist, True) if m.junk else (*parts, True)
        return destination.index, place, parts, *named
    return destination.index, place, (address,), *named


# --- rows to values ---


def _tls_facts(
    version: str,
    cipher: str,
    server_name: str,
    client_certificate: str,
    client_verified: bool,
    client_fault: str = "",
    client_emails: Any = (),
) -> TLSFacts:
    return TLSFacts(
        version, cipher, server_name, client_certificate, client_verified, client_fault, tuple(client_emails)
    )


def _decoded(row: list[Any]) -> tuple[Envelope, tuple[Destination, ...]]:
    version, id, received_at, sender, parameters, peer, recipient_rows, destination_rows = row
    recipients = tuple([_recipient(recipient) for recipient in recipient_rows])
    address, port, service, hello, hello_verb, tls, login = peer
    envelope = Envelope(
        id,
        Peer(address, port, service, hello, hello_verb, None if tls is None else _tls_facts(*tls), login),
        None if sender is None else _address(sender),
        recipients,
        received_at,
        NO_MAIL_PARAMETERS if parameters is None else _mail_parameters(*parameters),
    )
    by_index = version <= NAMED_BY_INDEX
    return envelope, tuple([_destination(destination, recipients, by_index) for destination in destination_rows])


def _mail_parameters(
    size: int | None, body: str, smtputf8: bool, ret: str | None, envid: str | None, auth: str | None, requiretls: bool = False
) -> MailParameters:
    return MailParameters(size, body, smtputf8, ret, envid, auth, requiretls=requiretls)


def _address(row: list[Any]) -> Address:
    local, domain, *bare = row
    return Address(local, domain, *bare)


def _recipient(row: list[Any]) -> Recipient:
    if len(row) == 1:
        return Recipient(_address(row[0]))
    address, notify, orcpt = row
    return Recipient(
        _address(address),
        RecipientParameters(
            None if notify is None else frozenset(notify),
            None if orcpt is None else (orcpt[0], orcpt[1]),
        ),
    )


def _destination(row: list[Any], recipients: tuple[Recipient, ...], by_index: bool) -> Destination:
    index, place, route, *named = row
    by_index = by_index or bool(named and named[0])
    lines = named[1].encode("latin-1") if len(named) > 1 else b""
    quiet = len(named) > 2 and named[2] is True
    recipient = recipients[place] if type(place) is int else _recipient(place)
    if len(route) == 1:
        return Destination(index, recipient, Remote(_address(route[0])), by_index, lines, quiet)
    address, user, domain, folder, *facts = route
    box = Mailbox(user, domain, tuple(folder), *facts)
    return Destination(index, recipient, Local(_address(address), box), by_index, lines, quiet)
