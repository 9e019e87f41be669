"""Accounts in an LDAP directory: ``[accounts] use = "ldap"``.

Accounts are searched with the server's own login.  A password is right where the directory accepts a bind with it (RFC 4513
section 5.1).  Where the directory cannot be asked, recipients and logins are deferred, never refused.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import unquote

from cryptography import x509
from OpenSSL.crypto import X509
from pydantic import field_validator, model_validator
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.ssl import Certificate, platformTrust, trustRootFromCertificates
from zope.interface import implementer

from mailserver.accounts.cached_directory import KnownAccounts
from mailserver.accounts.directory_faults import DirectoryGone, DirectorySilent
from mailserver.authentication.answer_time import at_whole_second
from mailserver.authentication.checkers import AccountName
from mailserver.config import Duration, FilePath, Options
from mailserver.config.endpoints import socket_path
from mailserver.config.password_file import password_of
from mailserver.interfaces import (
    CannotTell,
    Clock,
    IAccountList,
    IComponent,
    IComponentFactory,
    IDirectory,
    IReloading,
    ISenderGrants,
    Services,
)
from mailserver.mail.answers import Mailbox
from mailserver.transport.verified import verified

__all__ = ["LdapDirectory", "LdapDirectoryFactory", "LdapDirectoryOptions", "LDAPServer"]

KNOWN_SECONDS = 10.0
URL = re.compile(r"(?P<scheme>ldap|ldaps)://(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.\-]+)(?::(?P<port>[0-9]{1,5}))?/?|ldapi://(?P<path>[^?]+)")
PORTS = {"ldap": 389, "ldaps": 636}

# RFC 4511 appendix A
SUCCESS = 0
# No such object, inappropriate authentication, invalid credentials, insufficient rights.  19 and 53 may concern the directory.
NO = (32, 48, 49, 50)


class LdapDirectoryOptions(Options):
    """Accounts in an LDAP directory."""

    url: str
    """`ldap://ldap.example.org`, `ldaps://…`, or `ldapi://` with the path of a Unix socket."""
    starttls: bool | None = None
    """Encrypt an `ldap://` connection. Absent: unless it is to this host."""
    authorities: FilePath | None = None
    """Who vouches for the directory's certificate, as PEM. Absent: the system's authorities."""
    bind_dn: str = ""
    """As whom the server searches. Empty: anonymously."""
    bind_password_file: FilePath | None = None
    """A file whose first line is its password; it is read again with each connection."""
    base: str
    """Below which entry accounts are searched: `ou=people,dc=example,dc=org`."""
    filter: str = "(mail={address})"
    """What an account's entry is (RFC 4515). `{address}` is the address in lower case, `{local}` and `{domain}` its halves."""
    address_attribute: str = "mail"
    """The attribute with the address, to list all accounts. Empty: none; mailboxes are then made with their first message."""
    senders_attribute: str = ""
    """The attribute with further addresses as which the account may send. Empty: none."""
    timeout: Duration = 5.0
    """How long one answer may take."""

    @field_validator("url")
    @classmethod
    def _one_that_we_know(cls, value: str) -> str:
        found = URL.fullmatch(value)
        if found is None or not 0 < int(found["port"] or 1) < 65536:
            raise ValueError("must be ldap://HOST, ldaps://HOST, with :PORT or without, or ldapi://PATH")
        socket_path(unquote(found["path"] or ""))
        return value

    @model_validator(mode="after")
    def _what_belongs_together(self) -> LdapDirectoryOptions:
        if "{address}" not in self.filter and "{local}" not in self.filter:
            raise ValueError("filter must have {address} or {local} in it, else it finds anybody")
        if bool(self.bind_dn) != (self.bind_password_file is not None):
            raise ValueError("bind_dn and bind_password_file need each other")
        if self.starttls and not self.url.startswith("ldap://"):
            raise ValueError("starttls is for ldap:// alone")
        return self


class LDAPServer:
    """Where the directory is, and how connections are encrypted.  Raises OSError where the authorities cannot be read."""

    def __init__(self, options: LdapDirectoryOptions, reactor: Any) -> None:
        found = URL.fullmatch(options.url)
        assert found is not None  # the options have checked it
        self.starttls: Callable[[], Any] = lambda: None
        if found["path"] is not None:
            self.endpoint: Any = UNIXClientEndpoint(reactor, unquote(found["path"]))
            return
        host, scheme = found["host"].strip("[]"), found["scheme"]
        self.endpoint = HostnameEndpoint(reactor, host, int(found["port"] or PORTS[scheme]))
        if scheme == "ldaps":
            self.endpoint = wrapClientTLS(verified(host, _trust(options.authorities)), self.endpoint)
        elif not is_here(host) if options.starttls is None else options.starttls:
            trust = _trust(options.authorities)
            self.starttls = lambda: verified(host, trust)


def is_here(host: str) -> bool:
    """Whether the name or the address is this host's own loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _trust(path: str | None) -> Any:
    if path is None:
        return platformTrust()
    with open(path, "rb") as file:
        octets = file.read()
    try:
        found = x509.load_pem_x509_certificates(octets)
    except ValueError:
        raise CannotTell(f"{path}: there is no certificate in it that could be read") from None
    return trustRootFromCertificates([Certificate(X509.from_cryptography(one)) for one in found])


@implementer(IDirectory, IAccountList, IComponent, IReloading, ICredentialsChecker, ISenderGrants)
class LdapDirectory:
    """Accounts in an LDAP directory.  `reactor` opens connections; `run_in_thread` reads files."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self, *, options: LdapDirectoryOptions, reactor: Any, clock: Clock, run_in_thread: Callable[..., Awaitable[Any]]
    ) -> None:
        self._options = options
        self._reactor = reactor
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._known = KnownAccounts(clock, KNOWN_SECONDS)
        self._one_connects = DeferredLock()
        self._connection: Any = None
        self._place: LDAPServer | None = None
        self._filter: Any = None

    async def start(self) -> None:
        """Ask once, so that wrong options or an unreachable directory stop the start.  Raises `CannotTell`."""
        try:
            from mailserver.accounts.ldap_connection import SearchFilter
        except ImportError as error:
            raise CannotTell("ldaptor is not installed; docs/accounts.md says how") from error
        try:
            self._filter = SearchFilter(self._options.filter)
        except ValueError as error:
            raise CannotTell(f"filter {error}") from error
        self._place = await self._run_in_thread(LDAPServer, self._options, self._reactor)
        await self._entry("nobody@invalid.invalid")

    async def reload(self) -> None:
        """Forget who exists, and look at everything as at the start.  Raises `CannotTell`."""
        self._known.forget()
        await self.start()

    async def stop(self) -> None:
        """Close the connection and open no other."""
        self._place = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # --- who exists ---

    async def find(self, local_part: str, domain: str) -> Mailbox | None:
        """The account's mailbox, None where the account does not exist.  Raises `CannotTell`."""
        exists = await self._known.exists(f"{local_part}@{domain}", self._exists)
        return Mailbox(local_part, domain) if exists else None

    async def _exists(self, address: str) -> bool:
        return await self._entry(address) is not None

    async def accounts(self) -> Sequence[str]:
        """All addresses that match the filter; none where the directory refuses to list so many."""
        attribute = self._options.address_attribute
        if not attribute:
            return []
        from mailserver.accounts.ldap_connection import SearchFilter

        everybody = SearchFilter(re.sub(r"\{(address|local|domain)\}", "*", self._options.filter))
        try:
            found = await self._search(everybody.filled({}), [attribute], at_most=0)
        except CannotTell:
            return []
        addresses = [address for entry in found for address in entry.values.get(attribute.lower(), ()) if "@" in address]
        for address in addresses:
            self._known.note(address.lower())
        return addresses

    async def granted_senders(self, account: str) -> Sequence[str]:
        """`ISenderGrants`."""
        attribute = self._options.senders_attribute
        entry = await self._entry(account) if attribute else None
        return () if entry is None else [one.lower() for one in entry.values.get(attribute.lower(), ()) if "@" in one]

    # --- login ---

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """`ICredentialsChecker`: the account, by a bind with its password.  Fails with `CannotTell`, too."""
        return Deferred.fromCoroutine(self._login(credentials))

    async def _login(self, credentials: Any) -> AccountName:
        since = self._clock.seconds()
        account, password = credentials.username.decode("utf-8"), credentials.password.decode("utf-8")
        entry = await self._entry(account)
        name = f"cn={secrets.token_hex(8)},{self._options.base}" if entry is None else entry.name  # nobody's
        if password and await self._takes(name, password) and entry is not None:
            return AccountName(account)
        await at_whole_second(self._clock, since)
        raise UnauthorizedLogin

    async def _takes(self, name: str, password: str) -> bool:
        """Whether a bind succeeds.  On a connection of its own, since a bind changes who searches on it."""
        connection = await self._connect()
        try:
            code = await connection.bind(name, password)
        finally:
            connection.close()
        if code == SUCCESS:
            return True
        if code in NO:
            return False
        raise CannotTell(f"the directory answers a login with result {code}")

    # --- asking ---

    async def _entry(self, address: str) -> Any:
        """The account's entry, None where none is found.  Raises `CannotTell` where two are found: either may be meant."""
        local, _, domain = address.rpartition("@")
        wanted = self._filter.filled({"address": address, "local": local, "domain": domain})
        attributes = [self._options.senders_attribute or "1.1"]  # RFC 4511 section 4.5.1.8: no attributes
        found = await self._search(wanted, attributes, at_most=2)
        if len(found) > 1:
            raise CannotTell(f"more than one entry is {address}")
        return found[0] if found else None

    async def _search(self, wanted: Any, attributes: Sequence[str], *, at_most: int) -> list[Any]:
        while True:
            connection, was_open = await self._one_connects.run(lambda: Deferred.fromCoroutine(self._connected()))
            was_idle = was_open and connection.is_idle
            try:
                found: list[Any] = await connection.search(self._options.base, wanted, attributes, at_most=at_most)
                return found
            except DirectorySilent:  # a firewall drops idle connections without a word
                if not was_idle:
                    raise
            except DirectoryGone:
                if not was_open:  # else the directory has closed an idle connection
                    raise

    async def _connected(self) -> tuple[Any, bool]:
        if self._connection is not None and self._connection.is_open:
            return self._connection, True
        connection = await self._connect()
        try:
            await self._bind(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection, False

    async def _bind(self, connection: Any) -> None:
        path = self._options.bind_password_file
        if path is None:
            return
        try:
            password = await self._run_in_thread(password_of, path)
        except (OSError, ValueError) as error:
            raise CannotTell(f"bind_password_file: {error}") from error
        code = await connection.bind(self._options.bind_dn, password)
        if code != SUCCESS:
            raise CannotTell(f"the directory does not let {self._options.bind_dn} in (result {code})")

    async def _connect(self) -> Any:
        from mailserver.accounts.ldap_connection import connect

        place = self._place
        if place is None:
            raise CannotTell("the directory is not in use")
        return await connect(
            place.endpoint, starttls=place.starttls(), clock=self._clock, seconds=self._options.timeout
        )


@implementer(IComponentFactory)
class LdapDirectoryFactory:
    """Makes the directory for ``[accounts] use = "ldap"``."""

    name = "ldap"
    summary = "Accounts in an LDAP directory"
    api_version = "1.0"
    provides = IDirectory
    options = LdapDirectoryOptions

    def build(self, options: LdapDirectoryOptions, services: Services) -> LdapDirectory:
        """Make the directory.  Raises no errors: `start` asks the LDAP server."""
        from twisted.internet import reactor

        return LdapDirectory(
            options=options, reactor=reactor, clock=services.clock, run_in_thread=services.run_in_thread
        )
