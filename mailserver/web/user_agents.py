"""What user agents read of a domain by draft-ietf-mailmaint-pacc: JSON, whose digest the DNS shows (``_ua-auto-config``).

It can name services with TLS from the first octet on, on the protocol's own port alone.
"""

from __future__ import annotations

import json

from mailserver.web.content import ClientSettings

__all__ = ["user_agent_configuration"]

PORTS = {"imap": 993, "pop3": 995, "smtp": 465}
NAME_CHARACTERS = 60


def user_agent_configuration(domain: str, settings: ClientSettings) -> bytes:
    """The document; the same octets as long as the settings are the same."""
    protocols: dict[str, dict[str, str]] = {}
    for one in (*settings.incoming, *settings.outgoing):
        if one.tls == "implicit" and one.port == PORTS[one.protocol]:
            protocols.setdefault(one.protocol, {"host": one.host})
    document = {
        "protocols": protocols,
        "authentication": {"password": True},
        "info": {"provider": {"name": domain[:NAME_CHARACTERS]}},
    }
    return json.dumps(document, indent=2).encode("ascii") + b"\n"
