"""What the configuration says of certificates from a CA, as the parts here need it."""

from __future__ import annotations

from dataclasses import dataclass

from mailserver.mail.dns_records import ServerAddress

__all__ = ["AcmeSettings", "AuthoritySettings"]


@dataclass(frozen=True, slots=True)
class AuthoritySettings:
    """A CA: the URL of its directory, and the external account binding, whose key is in a file."""

    directory: str
    eab_kid: str = ""
    eab_key_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeSettings:
    """Names are A-labels in lower case; the first of `mail_names` is the host's own, which no certificate can do without.

    `endpoints` are tried in this order where the server listens by itself.
    """

    mail_names: tuple[str, ...]
    authorities: tuple[AuthoritySettings, ...]
    contact: str
    profile: str = ""
    challenge: str = "http-01"
    endpoints: tuple[str, ...] = ()
    folder: str | None = None
    dns_key: str | None = None
    dns_server: ServerAddress | None = None
    ca_file: str | None = None
