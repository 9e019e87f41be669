"""Writes what `spf`, `dkim`, `arc` and `dmarc` have found into the message: one Authentication-Results (RFC 8601), one
Received-SPF.

Fields of other hosts that claim to be ours are taken away by the core, on every way in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zope.interface import implementer

from mailserver.api import (
    AddHeader,
    Content,
    Envelope,
    Finding,
    IComponentFactory,
    IModifier,
    Options,
    Services,
)
from mailserver.trust.authentication_results import MethodResult, authentication_results, received_spf

__all__ = ["AuthenticationResults", "AuthenticationResultsOptions", "factory"]

# The registered words (RFC 8601 section 2.7); a finding with another one is no result.
ERRORS = ("none", "temperror", "permerror")
WORDS: Mapping[str, tuple[str, ...]] = {
    "spf": ("pass", "fail", "softfail", "neutral", "policy", *ERRORS),
    "dkim": ("pass", "fail", "neutral", "policy", *ERRORS),
    "arc": ("pass", "fail", "none"),
    "dmarc": ("pass", "fail", *ERRORS),
}
ORDER = tuple(WORDS)
DKIM_FACTS = (("header.d", "domain"), ("header.i", "identity"), ("header.s", "selector"), ("header.a", "algorithm"))
SCOPES = {"mfrom": "smtp.mailfrom", "helo": "smtp.helo"}


class AuthenticationResultsOptions(Options):
    """Which fields are written."""

    received_spf: bool = True
    """Whether Received-SPF is written beside Authentication-Results."""


@implementer(IModifier)
class AuthenticationResults:
    """Puts the fields above the message.  Users' own mail, and mail of which nothing was found, gets none."""

    def __init__(self, options: AuthenticationResultsOptions, hostname: str) -> None:
        self._with_received_spf = options.received_spf
        self._hostname = hostname

    async def edits(self, envelope: Envelope, content: Content) -> Sequence[AddHeader]:
        """Received-SPF comes to stand above Authentication-Results, and both above our Received field."""
        peer = envelope.peer
        if peer.service != "mx" or peer.login or peer.ip is None:
            return ()
        findings = [one for one in envelope.findings if one.properties.get("result") in WORDS.get(one.name, ())]
        if not findings:
            return ()
        findings.sort(key=lambda one: ORDER.index(one.name))
        address = str(peer.ip)
        results = [_result_of(one, address) for one in findings]
        fields = [AddHeader("Authentication-Results", authentication_results(self._hostname, results))]
        spf = [one for one in findings if one.name == "spf"]
        if spf and self._with_received_spf:
            senders = [one for one in spf if one.properties.get("scope") == "mfrom"]
            fields.append(AddHeader("Received-SPF", self._received_spf((senders or spf)[0], envelope, address)))
        return fields

    def _received_spf(self, finding: Finding, envelope: Envelope, address: str) -> str:
        peer = envelope.peer
        result, is_sender = _text(finding, "result"), finding.properties.get("scope") == "mfrom"
        domain = _text(finding, "domain")
        return received_spf(
            result,
            f"{self._hostname}: {result} for {domain or 'no domain'} and {address}",
            {
                "receiver": self._hostname,
                "identity": "mailfrom" if is_sender else "helo",
                "client-ip": address,
                "envelope-from": str(envelope.sender or ""),
                "helo": peer.hello,
                "mechanism": _text(finding, "mechanism"),
                "problem": _text(finding, "reason") if result in ("temperror", "permerror") else "",
            },
        )


def _result_of(finding: Finding, address: str) -> MethodResult:
    result = _text(finding, "result")
    return MethodResult(
        finding.name,
        result,
        _properties(finding, address),
        reason="" if result in ("pass", "none") else _text(finding, "reason"),
        comment=_comment(finding),
    )


def _comment(finding: Finding) -> str:
    bits, sets = finding.properties.get("bits"), finding.properties.get("sets")
    if finding.name == "dkim" and isinstance(bits, int) and bits:
        return f"{bits}-bit key"
    return f"i={sets}" if finding.name == "arc" and isinstance(sets, int) and sets else ""


def _properties(finding: Finding, address: str) -> dict[str, str]:
    match finding.name:
        case "spf":
            return {SCOPES.get(_text(finding, "scope"), "smtp.mailfrom"): _text(finding, "domain")}
        case "dkim":
            return {name: _text(finding, fact) for name, fact in DKIM_FACTS}
        case "arc":
            return {"smtp.remote-ip": address}
    policy = {"policy.dmarc": _text(finding, "policy")} if finding.properties.get("result") == "fail" else {}
    return {"header.from": _text(finding, "domain"), **policy}


def _text(finding: Finding, name: str) -> str:
    return str(finding.properties.get(name) or "")


@implementer(IComponentFactory)
class AuthenticationResultsFactory:
    """Makes the modifier for ``[[filter]] use = "authentication_results"``."""

    name = "authentication_results"
    summary = "Writes what SPF, DKIM, ARC and DMARC have found into the message (Authentication-Results, RFC 8601)."
    api_version = "1.0"
    replays = True
    provides = IModifier
    options = AuthenticationResultsOptions

    def build(self, options: Any, services: Services) -> AuthenticationResults:
        """Return the modifier."""
        return AuthenticationResults(options, services.hostname)


factory = AuthenticationResultsFactory()
