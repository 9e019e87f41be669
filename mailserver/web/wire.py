"""What the server says to the web process: frames of JSON (`processes.frames`), each with a number and some members.

    {"number": 7, "policies": {…}, "challenges": [[host, token, key authorization], …], …}     →     7

A member is the whole of what it names; those that are missing stay as they were.  The process says the number of a frame that
it has taken up, and never anything else.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from mailserver.web.content import AlpnCertificate, ClientSettings, MailAccess, WebCertificate, WebContent

__all__ = ["ANSWER_OCTETS", "QUESTION_OCTETS", "decoded", "encoded", "members_of", "number_of", "said_number", "taken_up"]

QUESTION_OCTETS = 64 * 1024 * 1024  # some ten thousand domains have 5 MB
ANSWER_OCTETS = 20


def members_of(content: WebContent) -> dict[str, Any]:
    """The members that say all of it."""
    certificate = content.certificate
    return {
        "hostname": content.hostname,
        "policies": dict(content.policies),
        "clients": {domain: asdict(settings) for domain, settings in content.clients.items()},
        "challenges": [[host, token, words] for (host, token), words in content.challenges.items()],
        "alpn": {
            host: [base64.b64encode(one.certificate_der).decode("ascii"), one.key_pem] for host, one in content.alpn.items()
        },
        "certificate": None if certificate is None else [certificate.chain_pem, certificate.key_pem],
        "not_ready": content.not_ready,
    }


def encoded(number: int, members: Mapping[str, Any]) -> bytes:
    """A frame."""
    return json.dumps({"number": number, **members}).encode("ascii")


def decoded(frame: bytes) -> tuple[int, dict[str, Any]]:
    """Its number and its members.  Raises ValueError."""
    members = json.loads(frame)
    if not isinstance(members, dict):
        raise ValueError("it is no object")
    return int(members.pop("number", -1)), members


def taken_up(content: WebContent, members: Mapping[str, Any]) -> WebContent:
    """The content after these members.  Those that are not its own are left alone."""
    return replace(content, **{name: read(members[name]) for name, read in READING.items() if name in members})


def said_number(number: int) -> bytes:
    """What the process says of a frame that it has taken up."""
    return b"%d" % number


def number_of(answer: bytes) -> int:
    """-1 where the answer is no number; whoever has taken the process over may say anything."""
    return int(answer) if answer.isdigit() and len(answer) <= ANSWER_OCTETS else -1


def _clients(value: Mapping[str, Any]) -> dict[str, ClientSettings]:
    return {
        domain: ClientSettings(**{kind: tuple([MailAccess(**one) for one in found]) for kind, found in settings.items()})
        for domain, settings in value.items()
    }


READING: Mapping[str, Callable[[Any], Any]] = {
    "hostname": str,
    "policies": dict,
    "clients": _clients,
    "challenges": lambda value: {(host, token): words for host, token, words in value},
    "alpn": lambda value: {host: AlpnCertificate(base64.b64decode(der), key) for host, (der, key) in value.items()},
    "certificate": lambda value: None if value is None else WebCertificate(*value),
    "not_ready": lambda value: None if value is None else tuple(value),
}
