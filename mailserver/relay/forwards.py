"""Mail that an alias sends on to another host: with which sender it goes, and how it is kept from going round.

A host may not send in the name of a stranger's domain: SPF of that domain does not name it.  So a copy that leaves by an alias
leaves with a return path of ours (`return_paths`); the message's other recipients keep its sender.  The null reverse-path and
senders of our own domains are never changed, nor is anything of the message: above it stands a Delivered-To field with the name
of the alias, as in Postfix (X-Loop where a signature says which of these there are: anybody can write one that does).  A copy
that comes back to an alias whose name it already bears goes round, and is not sent again.

It is done for each attempt and not when the message comes: what has waited for a person's release for weeks leaves with a return
path that holds as long as any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from mailserver.interfaces import CannotTell
from mailserver.mail.address import Address, AddressError, normal_name
from mailserver.mail.answers import Delayed, Failed, Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.outcomes import clean_text
from mailserver.mail.parcel import Destination, one_for_each
from mailserver.mail.reply import Reply
from mailserver.mail.signatures import signed_by_others
from mailserver.relay.return_paths import ReturnPaths

__all__ = ["ForwardPart", "ForwardRules", "Forwards"]

MARK, OTHER_MARK = "Delivered-To", "X-Loop"
MARKS_READ = 100
GOES_ROUND = Reply.of(554, "5.4.6", "Mail forwarding loop")  # RFC 3463 section 3.5
NO_RETURN_PATH = Reply.of(451, "4.3.0", "No return path could be made for a forwarded message")

log = Logger()


@dataclass(frozen=True, slots=True)
class ForwardRules:
    """What a policy says: whether senders are rewritten, and in which domain, "" for the alias's own."""

    rewrites: bool = True
    domain: str = ""


@dataclass(frozen=True, slots=True)
class ForwardPart:
    """Destinations that leave with the same sender and the same octets above the message."""

    envelope: Envelope
    prefix: bytes
    destinations: tuple[Destination, ...]


class Forwards:
    """Divides a message's destinations by the sender with which they leave.

    `is_own(domain)` says whether mail for the domain is delivered here; `hostname` is ours in any case.  `note(id, step,
    **fields)` records which return path was used.
    """

    def __init__(
        self, *, paths: ReturnPaths, hostname: str, is_own: Callable[[str], bool], note: Callable[..., None]
    ) -> None:
        self.rules = ForwardRules()
        self._paths = paths
        self._hostname = hostname.lower()
        self._is_own = is_own
        self._note = note

    def concern(self, destinations: Sequence[Destination]) -> bool:
        """One of them leaves by an alias."""
        for one in destinations:
            route, recipient = one.route.address, one.recipient.address
            if route is not recipient and route != recipient and self._is_forward(one):
                return True
        return False

    async def parts(
        self, envelope: Envelope, content: Content, destinations: Sequence[Destination]
    ) -> tuple[list[ForwardPart], Mapping[int, Outcome]]:
        """How they leave, and the outcomes of those that do not: each of them is in one of the two.

        Several that lead to one address stay together, and go as the first of them does, or as one who was addressed there.
        """
        groups: dict[tuple[Address | None, bytes], list[Destination]] = {}
        outcomes: dict[int, Outcome] = {}
        marks: frozenset[str] | None = None
        mark = MARK
        for same in one_for_each(destinations):
            direct = next((one for one in same if not self._is_forward(one)), None)
            if direct is not None:
                groups.setdefault((envelope.sender, b""), []).extend((direct, *[one for one in same if one is not direct]))
                continue
            alias = same[0].recipient.address
            outcome: Outcome
            try:
                if marks is None:
                    marks = marks_of(content)
                    mark = OTHER_MARK if MARK.lower() in signed_by_others(content.headers) else MARK
                if _name(alias) not in marks:
                    sender = await self._sender(envelope, alias)
                    groups.setdefault((sender, mark_of(alias, mark)), []).extend(same)
                    continue
                outcome = Failed(GOES_ROUND, clean_text(f"it has been at {alias} before"))
            except CancelledError:
                raise
            except (CannotTell, OSError) as error:  # the file of a large message may not be readable now
                outcome = Delayed(NO_RETURN_PATH, clean_text(str(error)))
            except Exception:  # noqa: BLE001  a fault of ours, which is no other recipient's matter
                log.failure("{id}: no return path could be made for what leaves by {alias}", id=envelope.id, alias=str(alias))
                outcome = Delayed(NO_RETURN_PATH, "a fault of the server, which the log has")
            outcomes |= {one.index: outcome for one in same}
        parts = []
        for (sender, prefix), group in groups.items():
            changed = envelope if sender == envelope.sender else replace(envelope, sender=sender)
            parts.append(ForwardPart(changed, prefix, tuple(group)))
            if changed is not envelope:
                alias = group[0].recipient.address
                to = [str(one.route.address) for one in group]
                self._note(envelope.id, "forwarded", recipient=str(alias), to=to, return_path=str(sender))
        return parts, outcomes

    async def _sender(self, envelope: Envelope, alias: Address) -> Address | None:
        sender = envelope.sender
        if sender is None or not self.rules.rewrites or self._is_ours(sender):
            return sender
        domain = self.rules.domain
        if not domain:
            domain = alias.domain_key if alias.domain and self._is_own(alias.domain) else self._hostname
        return await self._paths.made(sender, domain)

    def _is_forward(self, one: Destination) -> bool:
        """The recipient's address is one of ours, and leads to another host."""
        route, recipient = one.route.address, one.recipient.address
        if route == recipient or self._is_own(route.domain):
            return False
        return self._is_ours(recipient) or recipient.is_literal or not recipient.domain

    def _is_ours(self, address: Address) -> bool:
        return self._is_own(address.domain) or address.domain.lower() == self._hostname


def marks_of(content: Content) -> frozenset[str]:
    """Where the message says that it has been."""
    found = [*content.headers.get_all(MARK)[:MARKS_READ], *content.headers.get_all(OTHER_MARK)[:MARKS_READ]]
    return frozenset([one.strip().strip("<>").lower() for one in found])


def mark_of(alias: Address, name: str) -> bytes:
    """The field of this name that says so of this alias; all of it is ASCII."""
    return f"{name}: {_ascii(alias)}\r\n".encode("ascii")


def _name(alias: Address) -> str:
    """As it stands in the field, without a difference of case."""
    return _ascii(alias).lower()


def _ascii(alias: Address) -> str:
    text = str(alias)
    if text.isascii():
        return text
    try:
        text = normal_name(alias)
    except AddressError:
        pass
    # As RFC 6533 section 3 has it: no host has to know SMTPUTF8 for the sake of a trace field.
    return "".join([one if one.isascii() else f"\\x{{{ord(one):X}}}" for one in text])
