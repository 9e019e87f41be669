"""EXTERNAL (RFC 4422 appendix A): the client is whom its TLS certificate stands for."""

from __future__ import annotations

from mailserver.sasl.exchange import Mechanism
from mailserver.sasl.plain import text_of
from mailserver.sasl.steps import Challenge, CheckCertificate, Failed, Succeeded, Trouble

__all__ = ["external"]


def external() -> Mechanism:
    """The server's side.  The response is the authorization identity, empty for the certificate's own."""
    response = yield Challenge(b"", is_prompt=True)
    authorization = text_of(response)
    if authorization is None:
        return Failed(Trouble.MALFORMED)
    account = yield CheckCertificate(authorization)
    if account is None:
        return Failed(Trouble.CREDENTIALS, authorization)
    return Succeeded(account, authorization)
