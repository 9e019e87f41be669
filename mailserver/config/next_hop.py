"""The keys that say how another host is reached: by `[relay]`, and by a `[[route]]` in its place."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from mailserver.config.options import Options
from mailserver.config.values import Count, FilePath, host_name
from mailserver.sasl.oauth import TOKEN_MECHANISMS

__all__ = ["HopKeys", "LoginKeys", "Port", "check_certificate", "check_login", "checked_url", "next_host_name"]

Port = Annotated[int, Field(ge=1, le=65535)]


def _address(kind: type) -> Callable[[str], str]:
    def checked(value: str) -> str:
        try:
            return str(kind(value))
        except ValueError:
            raise ValueError(f"{value!r} is no {kind.__name__.removesuffix('Address')} address") from None

    return checked


def next_host_name(value: str) -> str:
    """Check the next host's name: a host name, or a numeric address with or without brackets."""
    bare = value.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare.removeprefix("IPv6:")))
    except ValueError:
        return host_name(value)


def checked_url(url: str) -> str:
    """The URL, where it is https, or http to this host itself.  Raises ValueError: secrets go there."""
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > 2000:
        raise ValueError("must be a URL")
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host or "@" in parts.netloc or parts.fragment or not (parts.port is None or parts.port > 0):
        raise ValueError("must be a URL with a host, without a user and without a fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ValueError("must begin with https:// (http:// is for 127.0.0.1 alone)")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _issuer(value: str) -> str:
    return checked_url(value) if value else value


class HopKeys(Options):
    """How to connect."""

    port: Port = 25
    """The port on the other side."""
    tls: Literal["none", "opportunistic", "required", "verified"] = "opportunistic"
    """`opportunistic` encrypts where it is offered and works, whatever the certificate; `required` never sends in the clear;
    `verified` also wants a certificate of the host's name that the system's authorities vouch for."""
    ip: Literal["any", "ipv4", "ipv6"] = "any"
    """Which addresses of a host are used."""
    prefer: Literal["any", "ipv4", "ipv6"] = "any"
    """Which addresses of a host are tried first; `any`: IPv4. Where our IPv6 address has no confirmed reverse name, IPv6 is left
    out for mail exchangers that have IPv4, unless `ip` or this says `ipv6`."""
    source_ipv4: Annotated[str, AfterValidator(_address(ipaddress.IPv4Address))] | None = None
    """Our own address on IPv4 connections."""
    source_ipv6: Annotated[str, AfterValidator(_address(ipaddress.IPv6Address))] | None = None
    """Our own address on IPv6 connections."""
    client_certificate: FilePath | None = None
    """The certificate with its chain, PEM, for a host that asks for one. Changed files are taken up by a reload."""
    client_key: FilePath | None = None
    """Its private key, PEM."""
    hosts_per_attempt: Annotated[Count, Field(le=10)] = 5
    """Hosts that one attempt tries at most."""
    addresses_per_attempt: Annotated[Count, Field(le=40)] = 5
    """Addresses that one attempt tries at most, of all these hosts together."""


class LoginKeys(HopKeys):
    """How to connect to one host, and to log in there."""

    implicit_tls: bool = False
    """Encrypt from the first octet on, as on port 465 (RFC 8314)."""
    username: str = ""
    """Log in to `host` as this user."""
    password_file: FilePath | None = None
    """A file whose first line is the password; it is read at each login."""
    oauth: Annotated[str, AfterValidator(_issuer)] = ""
    """Log in with tokens in the place of a password: the URL of who issues them, as OpenID Connect knows it."""
    oauth_client: str = ""
    """Our id at the issuer."""
    oauth_secret_file: FilePath | None = None
    """A file whose first line is our secret at the issuer, where it wants one; it is read each time."""
    oauth_scopes: tuple[str, ...] = ()
    """What the tokens shall be good for, in the issuer's words."""
    oauth_flow: Literal["device", "code", "client"] = "device"
    """How the first token is had (`mailserver smarthost login`): `device`, a person enters a code on any device; `code`, a
    person's browser is sent back with one; `client`, nobody is asked, the secret is enough."""
    mechanisms: tuple[
        Literal["OAUTHBEARER", "XOAUTH2", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5"], ...
    ] = ("OAUTHBEARER", "XOAUTH2", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5")
    """How to log in; the first in the order of the default that the host offers is taken. The first two are for `oauth`, the
    others for a password."""


def check_certificate(options: HopKeys) -> None:
    """What belongs together.  Raises ValueError."""
    if (options.client_certificate is None) != (options.client_key is None):
        raise ValueError("client_certificate and client_key go together")
    if options.client_certificate is not None and options.tls == "none":
        raise ValueError('a client_certificate is shown under TLS alone, and tls = "none" never gets there')


def check_login(options: LoginKeys) -> None:
    """What belongs together in a log-in.  Raises ValueError."""
    if options.oauth and options.password_file is not None:
        raise ValueError("password_file and oauth are two ways to log in: leave one out")
    if bool(options.username) != (options.password_file is not None or bool(options.oauth)):
        raise ValueError("username needs a password_file or oauth, and each of them needs a username")
    if options.oauth and not (options.oauth_client and options.oauth_scopes):
        raise ValueError("oauth needs oauth_client and oauth_scopes")
    if not options.oauth and (options.oauth_client or options.oauth_scopes or options.oauth_secret_file is not None):
        raise ValueError("oauth_client, oauth_scopes and oauth_secret_file need oauth")
    if options.oauth and options.oauth_flow == "client" and options.oauth_secret_file is None:
        raise ValueError('oauth_flow = "client" needs an oauth_secret_file')
    if options.oauth and not set(options.mechanisms) & set(TOKEN_MECHANISMS):
        raise ValueError("mechanisms leaves none for oauth")
    if (options.username or options.implicit_tls) and options.tls not in ("required", "verified"):
        raise ValueError('a login and implicit_tls need tls = "verified" (or "required", which believes any certificate)')
