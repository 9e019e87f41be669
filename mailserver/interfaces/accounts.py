"""Who exists and who may log in."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from zope.interface import Attribute, Interface

from mailserver.mail.answers import Mailbox
from mailserver.mail.envelope import Peer
from mailserver.sasl.scram_keys import ScramForm
from mailserver.sasl.steps import Challenge, ChannelBindings, ScramKeys

__all__ = [
    "CannotTell",
    "Denial",
    "Denied",
    "IAccountList",
    "IAuthenticator",
    "ICertificateAccounts",
    "IDirectory",
    "IHostAccounts",
    "ILogin",
    "IScramAccounts",
    "ISecretAccounts",
    "ISenderGrants",
    "IUsualScramForm",
    "LoggedIn",
]


class CannotTell(OSError):
    """What a directory or a checker raises that cannot be asked now: a database that is gone, an answer that never came.

    It is neither yes nor no.  A recipient is deferred, a login hears a temporary failure, and where the start needs the answer,
    the server does not start.  Any other error of theirs means the same; this one says so.
    """


class IDirectory(Interface):
    """Knows who exists."""

    def find(local_part: str, domain: str) -> Awaitable[Mailbox | None]:
        """Return the mailbox of the account with exactly this name (domain in lower case), None where there is none.

        `CannotTell`, like any other error: the recipient is deferred, never refused.
        """


class IHostAccounts(Interface):
    """Optional marker, beside `IAccountList`: the accounts are the users of the host, so the first of them is anybody."""


class IAccountList(Interface):
    """Optional, beside `IDirectory`: a directory that can say who exists."""

    def accounts() -> Awaitable[Sequence[str]]:
        """The accounts' addresses; the first is taken for the postmaster's where none is configured."""


# --- Who may log in.  Passwords are checked by `twisted.cred.checkers.ICredentialsChecker`s for `IUsernamePassword`: what
# `[accounts] use` names, where it provides that interface, and strcred's.  `UnauthorizedLogin` is their no; where they cannot
# be asked, they raise `CannotTell`. ---


class IScramAccounts(Interface):
    """Optional, beside `IDirectory`: accounts that can log in with SCRAM-SHA-256."""

    def scram_keys(account: str) -> Awaitable[ScramKeys | None]:
        """What is kept of the account's password (RFC 5803), None where there is no such account or it has no keys."""


class IUsualScramForm(Interface):
    """Optional, beside `IScramAccounts`: whose keys were not all made by this server."""

    def usual_scram_form() -> Awaitable[ScramForm | None]:
        """The form that most accounts' keys have, so that the keys shown for an unknown name do not differ from it.

        None where it is not known: then it is the form of keys made here.
        """


class ISecretAccounts(Interface):
    """Optional, beside `IDirectory`: accounts whose passwords can be read, which CRAM-MD5 needs."""

    serves_secrets = Attribute("Whether any account has a readable password: only then is CRAM-MD5 offered.")

    def secret(account: str) -> Awaitable[bytes | None]:
        """The password in UTF-8, None where it cannot be read."""


class ICertificateAccounts(Interface):
    """Optional, beside `IDirectory`: accounts that a TLS client certificate may stand for."""

    def account_of_certificate(fingerprint: str, emails: Sequence[str]) -> Awaitable[str | None]:
        """The account, None where there is none.  `fingerprint` is SHA-256 in lower-case hex.

        `emails` are the certificate's addresses where one of our authorities vouches for it, else empty.
        """


class ISenderGrants(Interface):
    """Optional, beside `IDirectory`: accounts that may send as others than themselves."""

    def granted_senders(account: str) -> Awaitable[Sequence[str]]:
        """Addresses, or ``@`` and a domain; the account's own address and its aliases need not be among them."""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The client is this account (an address).

    `method` is the mechanism, `note` for the log, such as the app password's name.
    """

    account: str
    method: str
    note: str = ""


class Denial(enum.Enum):
    """Why a login is refused, as far as the client may know."""

    CREDENTIALS = "the credentials are wrong, or there is no such account"
    MALFORMED = "the response is not well formed"
    WEAK = "this mechanism is too weak for this account"
    UNAVAILABLE = "the accounts cannot be asked now"
    SLOW_DOWN = "too many failures from there: later"


@dataclass(frozen=True, slots=True)
class Denied:
    """No.  `why` and `username` are for the log alone."""

    denial: Denial
    why: str
    username: str = ""


class ILogin(Interface):
    """One SASL exchange that is under way (RFC 4422), with all that the accounts and the lockout have to say."""

    def respond(data: bytes | None) -> Awaitable[Challenge | LoggedIn | Denied]:
        """Feed the client's response, None for "no initial response".  After `LoggedIn` or `Denied` it is over."""

    def cancel() -> None:
        """The client has cancelled, or is gone."""


class IAuthenticator(Interface):
    """Who may log in: the one way for every service.  The core's own, not a plugin's."""

    def mechanisms(peer: Peer) -> Sequence[str]:
        """The SASL mechanisms that this peer is offered now, the best first; none in the clear, where that is not allowed."""

    def begin(mechanism: str, peer: Peer, bindings: ChannelBindings) -> ILogin:
        """Begin an exchange with one of `mechanisms`."""

    def granted_senders(account: str) -> Awaitable[Sequence[str]]:
        """As `ISenderGrants`; none where the accounts know none."""
