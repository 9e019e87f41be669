"""`[acme]`: the CA from which the server gets its certificates (RFC 8555), and how it shows that the names are ours."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mailserver.config.options import Options
from mailserver.config.values import Endpoint, FilePath, HostName, MailAddress, NameServer

__all__ = ["AcmeTable"]

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"


def _https(value: str) -> str:
    if not value.startswith("https://") or len(value) > 500 or not value.isascii() or any(one <= " " for one in value):
        raise ValueError("must be the https:// URL of a CA's directory")
    return value


DirectoryURL = Annotated[str, AfterValidator(_https)]


class AcmeTable(Options):
    """Certificates from a CA by ACME (RFC 8555), renewed by themselves. `[tls] acme = true` is the same as an empty table. Who
    has either agrees to the CA's terms of service."""

    directory: DirectoryURL = LETS_ENCRYPT
    """The CA: the URL of its directory."""
    contact: MailAddress | None = None
    """Whom the CA may write to. Absent: `postmaster` of the domain that completes names."""
    names: tuple[HostName, ...] = Field(default=(), max_length=20)
    """More names of this host for the certificate, beside `hostname`: `imap.example.org`."""
    profile: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9._-]*$")] = ""
    """The CA's profile, such as `tlsserver` or `shortlived`. One that the CA does not offer is left out, and told."""
    eab_kid: Annotated[str, Field(max_length=500)] = ""
    """External account binding: the key identifier that the CA has given."""
    eab_key_file: FilePath | None = None
    """The file with the key of that binding, base64url as the CA has given it."""
    challenge: Literal["http-01", "tls-alpn-01", "dns-01"] = "http-01"
    """How a name is shown to be ours: on port 80, on port 443, or in the DNS. The first two by the `web` listener of that port,
    where there is one."""
    endpoint: Endpoint | None = None
    """Where the server listens by itself, while the CA looks. Absent: `tcp6:80` or `tcp6:443`, by the challenge."""
    folder: FilePath | None = None
    """For http-01 by another web server of this host: its root folder for these names. The answers are put below it, into
    `.well-known/acme-challenge`."""
    dns_key: FilePath | None = None
    """For dns-01: the file with the key that may change the zone, as `tsig-keygen` writes it."""
    dns_server: NameServer | None = None
    """For dns-01: the zone's primary server. Absent: the one that the zone's SOA record names."""
    second: DirectoryURL | None = None
    """Another CA, for when the first gives no certificate."""
    second_eab_kid: Annotated[str, Field(max_length=500)] = ""
    """The second's external account binding."""
    second_eab_key_file: FilePath | None = None
    """The key of that binding."""
    ca_file: FilePath | None = None
    """The roots that vouch for the CA's own https, PEM: of a CA of your own. Absent: the public ones."""

    @model_validator(mode="after")
    def _fit_together(self) -> AcmeTable:
        if bool(self.eab_kid) != (self.eab_key_file is not None):
            raise ValueError("eab_kid and eab_key_file go together")
        if bool(self.second_eab_kid) != (self.second_eab_key_file is not None):
            raise ValueError("second_eab_kid and second_eab_key_file go together")
        if self.second_eab_kid and self.second is None:
            raise ValueError("second_eab_kid without second")
        if self.second == self.directory:
            raise ValueError("second is the same CA as directory")
        if self.folder is not None and (self.challenge != "http-01" or self.endpoint is not None):
            raise ValueError('folder goes with challenge = "http-01", and without endpoint')
        if self.challenge == "dns-01" and self.dns_key is None:
            raise ValueError('challenge = "dns-01" needs dns_key')
        if self.challenge == "dns-01" and self.endpoint is not None:
            raise ValueError('nothing listens for challenge = "dns-01"')
        if self.challenge != "dns-01" and (self.dns_key is not None or self.dns_server is not None):
            raise ValueError('dns_key and dns_server go with challenge = "dns-01"')
        return self
