"""The format of a file in the pickup folder: a message that a program of this host hands over.

The first line is a JSON object in ASCII, closed by LF; all that follows is the message, its lines closed by CRLF.

    {"version": 1, "sender": "alice@example.org", "recipients": ["bob@example.net"], "body": "8BITMIME"}

    version      1
    sender       the reverse-path, "" for the null one
    recipients   one or more addresses, each with its domain
    body         "7BIT" or "8BITMIME"; absent: "7BIT"
    smtputf8     true where an address is not ASCII; absent: false
    ret          "FULL" or "HDRS", envid: a text, notify: a list of "SUCCESS", "FAILURE", "DELAY", or just "NEVER" (RFC 3461)

The file's name is `pickup_name`; it is written under another name that begins with a dot and renamed when it is complete.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from mailserver.mail.address import Address, AddressError
from mailserver.mail.envelope import MailParameters, Recipient, RecipientParameters

__all__ = ["ENVELOPE_OCTETS", "PickupEnvelope", "PickupFault", "pickup_name", "is_pickup_name"]

VERSION = 1
ENVELOPE_OCTETS = 1 << 20  # of the first line
RECIPIENTS = 10_000
ENVID_CHARACTERS = 100  # RFC 3461 section 4.4
NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{32}\.mail")
KEYS = frozenset({"version", "sender", "recipients", "body", "smtputf8", "ret", "envid", "notify"})
NOTIFY = frozenset({"NEVER", "SUCCESS", "FAILURE", "DELAY"})


class PickupFault(ValueError):
    """The file is not a message; the words say why."""


def pickup_name(microseconds: int, random: bytes) -> str:
    """A name that nobody else has and nobody can guess: it begins with the time, 16 random octets follow."""
    return f"{microseconds:016x}-{random.hex()}.mail"


def is_pickup_name(name: str) -> bool:
    """The name is one of a complete file."""
    return NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class PickupEnvelope:
    """The first line."""

    sender: Address | None
    recipients: tuple[Recipient, ...]
    parameters: MailParameters

    def encode(self) -> bytes:
        """The line with its LF.  All recipients have the first one's NOTIFY."""
        p = self.parameters
        notify = self.recipients[0].parameters.notify
        row = {
            "version": VERSION,
            "sender": "" if self.sender is None else self.sender.path,
            "recipients": [one.address.path for one in self.recipients],
            "body": p.body,
            "smtputf8": p.smtputf8,
            "ret": p.ret,
            "envid": p.envid,
            "notify": None if notify is None else sorted(notify),
        }
        return json.dumps({key: value for key, value in row.items() if value is not None}).encode("ascii") + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> PickupEnvelope:
        """Raises `PickupFault` for a malformed line."""
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PickupFault(f"its first line is not JSON: {error}") from None
        if not isinstance(row, dict) or row.get("version") != VERSION:
            raise PickupFault(f"its first line is not an envelope of version {VERSION}")
        if row.keys() - KEYS:
            raise PickupFault(f"its envelope has an unknown key {min(row.keys() - KEYS)!r}")
        try:
            return cls._decoded(row)
        except AddressError as error:
            raise PickupFault(f"its envelope has an invalid address: {error}") from None

    @classmethod
    def _decoded(cls, row: dict[str, Any]) -> PickupEnvelope:
        sender, recipients = row.get("sender"), row.get("recipients")
        body, smtputf8, ret, envid = (
            row.get("body", "7BIT"),
            row.get("smtputf8", False),
            row.get("ret"),
            row.get("envid"),
        )
        if not isinstance(sender, str) or not isinstance(recipients, list) or not recipients:
            raise PickupFault("its envelope needs a sender and recipients")
        if len(recipients) > RECIPIENTS:
            raise PickupFault(f"its envelope has more than {RECIPIENTS} recipients")
        if not all(isinstance(one, str) for one in recipients):
            raise PickupFault("its recipients must be texts")
        if body not in ("7BIT", "8BITMIME") or not isinstance(smtputf8, bool) or ret not in (None, "FULL", "HDRS"):
            raise PickupFault("its envelope has an invalid body, smtputf8 or ret")
        if envid is not None and not (isinstance(envid, str) and envid.isascii() and envid.isprintable()):
            raise PickupFault("its envelope id (envid) is not printable ASCII")
        notify = _notify(row.get("notify"))
        recipient_parameters = RecipientParameters(notify)
        return cls(
            Address.parse(sender, utf8=smtputf8) if sender else None,
            tuple(
                [
                    Recipient(Address.parse(one, utf8=smtputf8), recipient_parameters)
                    for one in dict.fromkeys(recipients)
                ]
            ),
            MailParameters(
                body=body, smtputf8=smtputf8, ret=ret, envid=None if envid is None else envid[:ENVID_CHARACTERS]
            ),
        )


def _notify(value: Any) -> frozenset[str] | None:
    """RFC 3461 section 4.1: NEVER stands alone."""
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise PickupFault("its notify is invalid")
    wanted = frozenset(value)
    if wanted - NOTIFY or ("NEVER" in wanted and len(wanted) > 1):
        raise PickupFault("its notify is invalid")
    return wanted
