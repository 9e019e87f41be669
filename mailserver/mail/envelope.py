"""Who is connected, who sends, who receives: the envelope of RFC 5321 section 2.3.1."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network

from mailserver.mail.address import Address
from mailserver.mail.answers import Finding
from mailserver.mail.dns_records import LookupFailed
from mailserver.mail.filter_notes import FilterNotes
from mailserver.mail.networks import Network, ip_of
from mailserver.mail.quick import quick
from mailserver.mail.reverse_names import LookUp, confirmed_names

__all__ = ["NO_ADDRESS", "Envelope", "MailParameters", "Peer", "Recipient", "RecipientParameters", "TLSFacts"]

NO_ADDRESS = "proxy:"  # begins the `address` of a `Peer` of whom nothing but a proxy's own address is known


@dataclass(frozen=True, slots=True)
class TLSFacts:
    """What is known of a connection's encryption.

    `server_name` is what the client asked for (SNI).  `client_certificate` is the SHA-256 fingerprint of the client's certificate
    in lower-case hex, "" where none was shown; `client_verified` says that one of our authorities vouches for it, `client_fault`
    why not ("expired", "revoked", "unknown authority", …), `client_emails` are its addresses (subjectAltName, rfc822Name).
    `group` is that of the key exchange ("X25519MLKEM768"), "" where it is not known; the queue does not keep it.
    """

    version: str
    cipher: str
    server_name: str = ""
    client_certificate: str = ""
    client_verified: bool = False
    client_fault: str = ""
    client_emails: tuple[str, ...] = ()
    group: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection.

    `address` is the numeric IP address, or ``"unix"`` on a Unix socket; `port` is 0 there.  For what a program of this host
    handed over without a connection it is ``"local"``, and `hello` says which user's program that was.  Behind a proxy that does
    not say whom it brings it is ``"proxy:"`` and the proxy's own address: no address, which is in no network and has no right.
    `hello` is the name it gave with EHLO, HELO or LHLO (``""`` before), `login` the authenticated identity, `login_mechanism` how
    that has logged in ("PLAIN"; ``""`` for a program of this host), `login_note` what is to be said of it, such as which app
    password it was ("app password phone").
    `service` is the listener's profile: ``mx``, ``submission`` or ``lmtp``.  `findings` are those of the filters that have judged
    the peer so far; `notes` what filters have noted on this connection, by the filter's name and a key.  `look_up` is
    `IResolver.query`, for `names`, and `names_found` keeps them, by the address.
    """

    address: str
    port: int
    service: str
    hello: str = ""
    hello_verb: str = ""  # "EHLO", "HELO", "LHLO"
    tls: TLSFacts | None = None
    login: str = ""
    findings: tuple[Finding, ...] = field(default=(), compare=False, repr=False)
    notes: FilterNotes = field(default_factory=FilterNotes, compare=False, repr=False)
    look_up: LookUp | None = field(default=None, compare=False, repr=False)
    login_mechanism: str = field(default="", compare=False)
    login_note: str = field(default="", compare=False)
    names_found: dict[str, tuple[str, ...]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def ip(self) -> IPv4Address | IPv6Address | None:
        """The address, one that is mapped into IPv6 as IPv4; None where `address` is none."""
        return ip_of(self.address)

    @property
    def network(self) -> Network | None:
        """What is counted as one client: the IPv4 address as a /32, the IPv6 network of 64 bits; None where there is no `ip`."""
        ip = ip_of(self.address)
        return None if ip is None else ip_network((ip, 32 if ip.version == 4 else 64), strict=False)

    async def names(self) -> tuple[str, ...]:
        """The names that the address has in the DNS and that have this address: none where `ip` is None.

        They are looked up when they are asked for, ten at most, and once for a connection.  Raises `LookupFailed` where nobody
        can tell.
        """
        found = self.names_found.get(self.address)
        if found is not None:
            return found
        ip = ip_of(self.address)
        if ip is None:
            return ()
        if self.look_up is None:
            raise LookupFailed(f"{self.address}: there is nobody to ask for its names")
        found = await confirmed_names(ip, self.look_up)
        self.names_found[self.address] = found
        return found


@quick
@dataclass(frozen=True, slots=True)
class MailParameters:
    """The parameters of MAIL: SIZE (RFC 1870), BODY (RFC 6152, 3030), SMTPUTF8 (RFC 6531), RET and ENVID (RFC 3461).

    `requiretls` (RFC 8689): the message travels encrypted, to hosts that are who they say they are, or goes back.
    `extra` are those that a plugin's extension has added: keywords in upper case, each with its value, None where it has none.
    They are for those who judge the message; the queue does not keep them, and no other host gets them.  Nor `prdr`, which asks
    for a reply of their own for recipients (draft-hall-prdr).
    """

    size: int | None = None
    body: str = "7BIT"  # "7BIT" | "8BITMIME" | "BINARYMIME"
    smtputf8: bool = False
    ret: str | None = None  # "FULL" | "HDRS"
    envid: str | None = None  # decoded from xtext
    auth: str | None = None  # RFC 4954 section 5, decoded from xtext; "<>" for nobody
    extra: tuple[tuple[str, str | None], ...] = ()
    prdr: bool = False
    requiretls: bool = False


@dataclass(frozen=True, slots=True)
class RecipientParameters:
    """The parameters of RCPT: NOTIFY and ORCPT (RFC 3461 section 4).  `extra` is that of `MailParameters`."""

    notify: frozenset[str] | None = None  # {"NEVER"} or a set of "SUCCESS", "FAILURE", "DELAY"
    orcpt: tuple[str, str] | None = None  # (address type, address), decoded
    extra: tuple[tuple[str, str | None], ...] = ()


NO_MAIL_PARAMETERS = MailParameters()
NO_RECIPIENT_PARAMETERS = RecipientParameters()


@quick
@dataclass(frozen=True, slots=True)
class Recipient:
    """One accepted forward-path."""

    address: Address
    parameters: RecipientParameters = NO_RECIPIENT_PARAMETERS


@quick
@dataclass(frozen=True, slots=True)
class Envelope:
    """A message's envelope.  `sender` None is the null reverse-path; `received_at` is seconds since the epoch.

    `findings` are what the filters that were asked before have found: about the peer, the sender, the message.  Where one
    recipient's copy is judged, those about this recipient are among them; nobody else sees them.  `sent_on` is for modifiers and
    signers: whether a copy goes on to another host, as from an alias.
    """

    id: str
    peer: Peer
    sender: Address | None
    recipients: tuple[Recipient, ...]
    received_at: float
    parameters: MailParameters = field(default=NO_MAIL_PARAMETERS)
    findings: tuple[Finding, ...] = field(default=(), compare=False)
    sent_on: bool = field(default=False, compare=False)
