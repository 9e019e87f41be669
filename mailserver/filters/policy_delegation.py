"""Asks a policy service of Postfix's: policyd-spf, postfwd, postgrey and whatever else speaks its policy delegation protocol.

The attributes are those that Postfix 3.7 sends; what is not known here is empty, as it is there.  The action becomes a verdict:

    DUNNO, WARN, INFO                  pass; the words of the last two become a finding
    OK, and a number alone             accept
    REJECT, 5NN                        refuse
    DEFER, DEFER_IF_PERMIT, 4NN        defer: a refusal of another filter is the better answer anyhow
    HOLD                               quarantine
    DISCARD                            discard
    PREPEND Field: value               pass; the field is put above the message

All else (FILTER, REDIRECT, BCC, DEFER_IF_REJECT, names of restrictions) is the service's failure: to leave it out would change
what somebody wanted.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

from zope.interface import implementer

from mailserver.api import (
    Accept,
    AddHeader,
    Content,
    Defer,
    Discard,
    Duration,
    Edit,
    Envelope,
    Finding,
    IComponent,
    IComponentFactory,
    IContentFilter,
    IModifier,
    IRecipientFilter,
    LookupFailed,
    Options,
    Pass,
    Quarantine,
    Recipient,
    Refuse,
    Services,
    Verdict,
)
from mailserver.filters.policy_client import PolicyClient, PolicyFailed

__all__ = ["PolicyDelegation", "PolicyDelegationOptions", "factory", "verdict_of"]

Stage = Literal["RCPT", "DATA", "END-OF-MESSAGE"]
MESSAGES_MOST = 10_000  # whose fields wait for the end of the data
FIELDS_MOST = 100  # of one message
ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:\s+|\Z)")
FIELD = re.compile(r"([!-9;-~]+):[ \t]*(.+)")


class PolicyDelegationOptions(Options):
    """Where the service is, and when it is asked."""

    endpoint: str
    """Where it is: `tcp:127.0.0.1:10031`, `unix:/run/policyd.sock`."""
    stages: tuple[Stage, ...] = ("RCPT",)
    """When it is asked: `RCPT` for each recipient, `DATA` and `END-OF-MESSAGE` after the data."""
    connections: int = 10
    """How many questions are under way at once."""
    timeout: Duration = 20.0
    """How long a question may take, with its turn and the connection."""
    client_names: bool = True
    """Whether the client's confirmed name is looked up first (`client_name`; else it is `unknown`)."""


@implementer(IComponent, IRecipientFilter, IContentFilter, IModifier)
class PolicyDelegation:
    """Asks `client` at these stages."""

    def __init__(self, client: PolicyClient, *, stages: Sequence[Stage], client_names: bool) -> None:
        self._client = client
        self._stages = frozenset(stages)
        self._client_names = client_names
        self._fields: OrderedDict[str, list[AddHeader]] = OrderedDict()  # by the message's id

    async def start(self) -> None:
        """The service need not be there yet."""

    async def stop(self) -> None:
        """Close the connections."""
        self._client.stop()

    async def judge_recipient(self, envelope: Envelope, recipient: Recipient) -> Verdict:
        """At RCPT."""
        if "RCPT" not in self._stages:
            return Pass()
        return await self._ask("RCPT", envelope, str(recipient.address), envelope.parameters.size or 0)

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """After the data, the two stages that Postfix has before and after it."""
        verdict: Verdict = Pass()
        only = str(envelope.recipients[0].address) if len(envelope.recipients) == 1 else ""
        for stage in ("DATA", "END-OF-MESSAGE"):
            if stage in self._stages and isinstance(verdict, Pass):
                size = content.size if stage == "END-OF-MESSAGE" else envelope.parameters.size or 0
                verdict = await self._ask(stage, envelope, only, size)
        return verdict

    async def edits(self, envelope: Envelope, content: Content) -> Sequence[Edit]:
        """What was to be put above the message."""
        return self._fields.pop(envelope.id, ())

    async def _ask(self, stage: str, envelope: Envelope, recipient: str, size: int) -> Verdict:
        names = await self._names(envelope) if self._client_names else ()
        action = await self._client.ask(attributes_of(stage, envelope, recipient, size, names))
        verb, _, words = action.partition(" ")
        if verb.upper() != "PREPEND":
            return verdict_of(verb, words.strip())
        field = FIELD.fullmatch(words.strip())
        if field is None:
            raise PolicyFailed(f"PREPEND without a field: {words!r}")
        waiting = self._fields.setdefault(envelope.id, [])
        if len(waiting) >= FIELDS_MOST:
            raise PolicyFailed(f"more than {FIELDS_MOST} fields for one message")
        waiting.append(AddHeader(field[1], field[2]))
        while len(self._fields) > MESSAGES_MOST:  # of transactions that have ended otherwise
            self._fields.popitem(last=False)
        return Pass()

    async def _names(self, envelope: Envelope) -> tuple[str, ...]:
        try:
            return await envelope.peer.names()
        except LookupFailed:  # Postfix: client_name=unknown
            return ()


def attributes_of(stage: str, envelope: Envelope, recipient: str, size: int, names: Sequence[str]) -> dict[str, str]:
    """The attributes, in Postfix's order."""
    peer, tls = envelope.peer, envelope.peer.tls
    name = names[0] if names else "unknown"
    return {
        "request": "smtpd_access_policy",
        "protocol_state": stage,
        "protocol_name": {"EHLO": "ESMTP", "LHLO": "LMTP"}.get(peer.hello_verb, "SMTP"),
        "client_address": str(peer.ip or peer.address),
        "client_name": name,
        "client_port": str(peer.port),
        "reverse_client_name": name,
        "server_address": "",
        "server_port": "",
        "helo_name": peer.hello,
        "sender": "" if envelope.sender is None else str(envelope.sender),
        "recipient": recipient,
        "recipient_count": "0" if stage == "RCPT" else str(len(envelope.recipients)),
        "queue_id": "" if stage == "RCPT" and not envelope.recipients else envelope.id,
        "instance": envelope.id,
        "size": str(size),
        "etrn_domain": "",
        "stress": "",
        "sasl_method": "",
        "sasl_username": peer.login,
        "sasl_sender": envelope.parameters.auth or "",
        "ccert_subject": "",
        "ccert_issuer": "",
        "ccert_fingerprint": "" if tls is None else tls.client_certificate,
        "ccert_pubkey_fingerprint": "",
        "encryption_protocol": "" if tls is None else tls.version,
        "encryption_cipher": "" if tls is None else tls.cipher,
        "encryption_keysize": "0",
        "policy_context": "",
    }


def verdict_of(verb: str, words: str) -> Verdict:
    """What an action without PREPEND means (access(5)).  Raises `PolicyFailed` for what cannot be done here."""
    kind = verb.upper()
    enhanced = ENHANCED.match(words)
    code, why = (enhanced[1], words[enhanced.end() :]) if enhanced else ("", words)
    why = why or "the policy service says so"
    if kind == "DUNNO":
        return Pass()
    if kind in ("WARN", "INFO"):
        return Pass(findings=(Finding(f"policy-{kind.lower()}", evidence=words[:1000]),))
    if kind == "REJECT" or re.fullmatch("5[0-9]{2}", kind):
        return Refuse(why, enhanced=code) if code.startswith("5") else Refuse(why)
    if kind in ("DEFER", "DEFER_IF_PERMIT") or re.fullmatch("4[0-9]{2}", kind):
        return Defer(why, enhanced=code) if code.startswith("4") else Defer(why)
    if kind == "OK" or (kind.isascii() and kind.isdigit()):
        return Accept(why)
    if kind == "HOLD":
        return Quarantine(why)
    if kind == "DISCARD":
        return Discard(why)
    raise PolicyFailed(f"the policy service's action {verb[:50]!r} cannot be done here")


@implementer(IComponentFactory)
class PolicyDelegationFactory:
    """Makes the filter for ``[[filter]] use = "policy_delegation"``."""

    name = "policy_delegation"
    summary = "Asks a policy service that speaks Postfix's policy delegation."
    api_version = "1.0"
    provides = (IRecipientFilter, IContentFilter, IModifier)
    options = PolicyDelegationOptions

    def build(self, options: Any, services: Services) -> PolicyDelegation:
        """Return the filter.  Raises ValueError for an endpoint that is none."""
        from twisted.internet import reactor

        client = PolicyClient(
            endpoint=options.endpoint,
            connections=options.connections,
            seconds=options.timeout,
            reactor=reactor,
            clock=services.clock,
        )
        return PolicyDelegation(client, stages=options.stages, client_names=options.client_names)


factory = PolicyDelegationFactory()
