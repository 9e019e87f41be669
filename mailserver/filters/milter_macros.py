"""The macros of the milter protocol: which go with which command, and what each is here.  Pure.

A milter may ask for others of them (SETSYMLIST) and then gets those.  What this server does not know is not sent: a macro
without a value is one that the milter's library says is not there.

    j  our name                    v  our program and its version        _  the client's name and address
    {daemon_name}                  the table's `daemon_name`: our name, or "ORIGINATING"
    {client_addr} {client_port}    the client's address and port
    {client_name} {client_ptr}     its confirmed name; client_name is "unknown" where it has none
    {client_resolve}               OK, FAIL, or TEMP where the DNS could not tell
    {tls_version} {cipher}         of the connection's encryption; without encryption there are none
    {verify}                       its client certificate: OK, FAIL, NO
    s  r                           the name given with EHLO or HELO; SMTP, ESMTP, LMTP
    i                              the message's id, as in our log
    {mail_addr} {mail_host} f      the sender, the sender's domain
    {auth_authen} {auth_type}      the login and its mechanism; {auth_author}: the AUTH= of MAIL
    {rcpt_addr} {rcpt_host}        the recipient, the recipient's domain
    {nrcpts}                       how many recipients were accepted
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from mailserver.api import Envelope, Peer, Recipient
from mailserver.filters.milter_wire import MilterStep

__all__ = ["USUAL", "ClientName", "macros_for", "values"]

USUAL: Mapping[MilterStep, Sequence[str]] = MappingProxyType(
    {
        MilterStep.CONNECT: (
            "j", "v", "_", "{daemon_name}", "{client_addr}", "{client_name}", "{client_port}", "{client_ptr}", "{client_resolve}",
        ),
        MilterStep.HELO: ("{tls_version}", "{cipher}", "{verify}"),
        MilterStep.MAIL: ("i", "{auth_type}", "{auth_authen}", "{auth_author}", "{mail_addr}", "{mail_host}"),
        MilterStep.RCPT: ("i", "{rcpt_addr}", "{rcpt_host}"),
        MilterStep.DATA: ("i", "{nrcpts}"),
        MilterStep.END_OF_HEADER: ("i",),
        MilterStep.END: ("i",),
    }
)  # fmt: skip
"""What is sent where a milter does not say what it wants.  Postfix's lists, as far as it is known, and the client's."""


@dataclass(frozen=True, slots=True)
class ClientName:
    """What the DNS says of the client's address: its confirmed name, "" where it has none or nobody could tell."""

    name: str = ""
    could_tell: bool = True


def values(
    *,
    hostname: str,
    version: str,
    daemon_name: str,
    client: ClientName,
    peer: Peer,
    envelope: Envelope | None = None,
    recipient: Recipient | None = None,
) -> Mapping[str, str]:
    """Every macro that has a value now."""
    address = "127.0.0.1" if peer.address == "local" else str(peer.ip or "")
    name = "localhost" if peer.address == "local" else client.name
    found = {
        "j": hostname,
        "v": version,
        "_": f"{name or 'unknown'} [{address}]",
        "{daemon_name}": daemon_name,
        "{client_addr}": f"IPv6:{address}" if ":" in address else address,  # as Sendmail and Postfix write it, here alone
        "{client_port}": str(peer.port) if peer.port else "",
        "{client_name}": name or "unknown",
        "{client_ptr}": name or "unknown",
        "{client_resolve}": "OK" if name else "FAIL" if client.could_tell else "TEMP",
        "s": peer.hello,
        "r": {"EHLO": "ESMTP", "LHLO": "LMTP", "HELO": "SMTP"}.get(peer.hello_verb, ""),
        "{auth_authen}": peer.login,
        "{auth_type}": peer.login_mechanism,
    }
    tls = peer.tls
    if tls is not None:
        verified = "OK" if tls.client_verified else "FAIL" if tls.client_certificate else "NO"
        found |= {"{tls_version}": tls.version, "{cipher}": tls.cipher, "{verify}": verified}
    if envelope is not None:
        sender = envelope.sender
        found |= {
            "i": envelope.id,
            "f": f"<{'' if sender is None else sender.path}>",
            "{mail_addr}": "" if sender is None else sender.path,
            "{mail_host}": "" if sender is None else sender.domain,
            "{auth_author}": envelope.parameters.auth or "",
            "{nrcpts}": str(len(envelope.recipients)),
        }
    if recipient is not None:
        found |= {"{rcpt_addr}": recipient.address.path, "{rcpt_host}": recipient.address.domain}
    return {key: value for key, value in found.items() if value}


def macros_for(step: MilterStep, asked: Sequence[str] | None, known: Mapping[str, str]) -> Mapping[str, str]:
    """Those that go with this command: the ones that the milter has asked for, else the usual ones."""
    return {name: known[name] for name in (USUAL[step] if asked is None else asked) if name in known}
