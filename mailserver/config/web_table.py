"""What is served over HTTP (``service = "web"``), and by whom."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mailserver.config.endpoints import bare_endpoint, place_of
from mailserver.config.options import Options
from mailserver.config.values import Duration, FilePath, HostName, host_name

__all__ = ["WebTable", "access_of", "fault_of_web_listener"]

MAX_AGE_MOST = 31_557_600  # RFC 8461 section 3.2
PORTS = {"imap": 993, "pop3": 995, "submission": 465}
STARTTLS_PORTS = (143, 110, 587)
USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")


def _host_and_port(value: str) -> str:
    name, colon, port = value.partition(":")
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("must be a host name, or one and a port: imap.example.org:993")
    return host_name(name) + (f":{int(port)}" if colon else "")


def _user(value: str) -> str:
    if USER.fullmatch(value) is None or value == "root":
        raise ValueError("must be the name of a user of the host who is not root")
    return value


MailHost = Annotated[str, AfterValidator(_host_and_port)]


class WebTable(Options):
    """What `web` listeners serve, by a process of its own: MTA-STS policies, settings of mail programs, challenges of certificate
    authorities, health."""

    certificate: FilePath | None = None
    """The certificate of the https names with its chain, PEM: never the mail host's. Absent: the one that `[tls] acme` gets, and
    until then one of the server's own making, which nobody vouches for."""
    key: FilePath | None = None
    """Its private key, PEM."""
    user: Annotated[str, AfterValidator(_user)] = "mailserver-web"
    """The host's user as whom the process runs where root starts the server. A server without root's rights starts it as its own
    user."""
    socket: FilePath | None = None
    """A Unix socket to which the process connects that a unit of its own starts: `/run/mailserver/web.sock`. Absent: the server
    starts the process."""
    socket_group: str | None = Field(default=None, min_length=1)
    """The group of the host that may connect there, with the server's user and root."""
    imap: MailHost | None = None
    """Where users read their mail, for their mail programs: `imap.example.org`, or with a port. TLS is from the first octet on,
    but STARTTLS on ports 143, 110 and 587. Without `imap` and `pop3` mail programs are told nothing."""
    pop3: MailHost | None = None
    """The same for POP3."""
    submission: MailHost | None = None
    """The same for sending. Absent: `hostname`, with the ports of the `submission` listeners that have TLS and are open to
    others."""
    mta_sts: Literal["testing", "enforce", "none"] = "testing"
    """The mode of the domains' policy (RFC 8461): whether other servers deliver where TLS does not hold what it promises. `none`
    takes an earlier policy back."""
    mta_sts_max_age: Annotated[Duration, Field(ge=86400, le=MAX_AGE_MOST)] = 604_800.0
    """How long others keep the policy."""
    mta_sts_hosts: tuple[HostName, ...] = ()
    """Hosts that take mail for the domains beside `hostname`, such as a second MX."""

    @model_validator(mode="after")
    def _fit_together(self) -> WebTable:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        if self.socket_group is not None and self.socket is None:
            raise ValueError("socket_group without a socket")
        return self


def fault_of_web_listener(endpoint: str, tls: str, *, asks: bool) -> str:
    """Why such a listener cannot be, "" where it can.  `asks`: it asks for logins, certificates or tokens."""
    if tls == "starttls":
        return 'a web listener has TLS from the first octet on or none: tls = "implicit" or "none"'
    if asks:
        return "a web listener asks for no logins, certificates or tokens"
    place, bare = place_of(bare_endpoint(endpoint)), bare_endpoint(endpoint)
    if place is None or (place.kind not in ("tcp", "tcp6", "unix") and not bare.startswith("systemd:")):
        return "a web listener is on a tcp, tcp6, unix or systemd endpoint"
    return ""


def access_of(text: str, kind: Literal["imap", "pop3", "submission"]) -> tuple[str, int, Literal["implicit", "starttls"]]:
    """Host, port and kind of TLS of a checked ``host[:port]``."""
    host, _, port = text.partition(":")
    number = int(port) if port else PORTS[kind]
    return host, number, "starttls" if number in STARTTLS_PORTS else "implicit"
