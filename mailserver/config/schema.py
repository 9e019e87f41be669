"""Every table and key of the configuration file, with its type, its default and its meaning.

The names are what administrators type.  `docs/configuration.md` is made from this module.
"""

from __future__ import annotations

import ipaddress
import os.path
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from mailserver.config.acme_table import AcmeTable
from mailserver.config.defaults import EXPIRE_SECONDS, SYSTEM_FOLDERS
from mailserver.config.endpoints import bare_endpoint, is_local, is_proxied
from mailserver.config.forward_table import ForwardTable
from mailserver.config.limits import LimitsTable
from mailserver.config.options import NOT_A_KEY, Options
from mailserver.config.policy_table import PolicyTable
from mailserver.config.route_table import RouteDomain, RouteTable
from mailserver.config.tls_options import NamedCertificate, TLSTable
from mailserver.config.traces_table import TracesTable
from mailserver.config.values import (
    COUNT_MOST,
    AliasMember,
    Count,
    DomainKey,
    Duration,
    Endpoint,
    FilePath,
    Fingerprint,
    HostName,
    MailAddress,
    NameServer,
    Network,
    Time,
)
from mailserver.config.web_table import WebTable, fault_of_web_listener
from mailserver.former import former_names
from mailserver.mail.address import normal_local

__all__ = [
    "AcmeTable",
    "DNSTable",
    "TLSTable",
    "WebTable",
    "AccountsTable",
    "AuthenticationTable",
    "Component",
    "Configuration",
    "DeliveryTable",
    "DomainTable",
    "PickupTable",
    "ForwardTable",
    "PolicyTable",
    "FilterTable",
    "LimitsTable",
    "ListenTable",
    "LockoutTable",
    "LogTable",
    "NamedCertificate",
    "PatternTable",
    "PrivacyTable",
    "QueueTable",
    "RelayTable",
    "RouteTable",
    "RouterTable",
    "SubmissionTable",
    "TracesTable",
]

ZoneName = Annotated[str, Field(pattern=r"^(\.|([A-Za-z0-9_-]{1,63}\.){0,20}[A-Za-z0-9-]{1,63}\.?)$", max_length=253)]
PublicAddress = Annotated[str, AfterValidator(lambda value: str(ipaddress.ip_address(value)))]
ComponentName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._#-]{1,60}$")]
KIB, MIB = 1024, 1024 * 1024
SEPARATORS = "+-_.=#~%!$&*/?^|"  # of an atom (RFC 5322 section 3.2.3), without letters, digits and quotes
Service = Literal["mx", "submission", "lmtp"]  # those by which mail comes


class ListenTable(Options):
    """A port (or socket) on which the server listens."""

    service: Literal["mx", "submission", "lmtp", "metrics", "web"]
    """What is spoken there: `mx` takes mail from other servers, `submission` from users, `lmtp` from a mail system
    beside this one (RFC 2033); `metrics` gives figures to Prometheus over HTTP; `web` serves what `[web]` says."""
    endpoint: Endpoint
    """A Twisted endpoint string: `tcp:25`, `tcp:2525:interface=127.0.0.1`, `unix:/run/mail/lmtp.sock:mode=660`,
    `systemd:domain=INET:index=0`. With `haproxy:` before it, as in `haproxy:tcp:25`, each connection begins with a PROXY header
    (version 1 or 2)."""
    proxies: tuple[Network, ...] | None = None
    """On a `haproxy:` endpoint: the networks of the proxies. What they say of the client's address is believed; everybody else's
    connection is closed. Absent: this host. On a Unix socket whoever may connect is believed."""
    tls: Literal["none", "starttls", "implicit"] = "none"
    """Encryption: offered with STARTTLS (RFC 3207), or from the first octet on (RFC 8314), with the certificates of `[tls]`."""
    require_tls: bool = False
    """Refuse mail on an unencrypted connection: MAIL hears 530."""
    client_certificate: Literal["ignore", "request", "require"] = "ignore"
    """Whether the client is asked for a certificate. `require` ends the handshake with a client that shows none, or one that
    `tls.client_authorities` do not vouch for."""
    authentication: bool | None = None
    """Whether clients may log in (AUTH). Absent: on `submission` listeners only."""
    token_file: FilePath | None = None
    """On a `metrics` listener: a file whose first line a client has to show as a bearer token. Without it the endpoint has to be
    on loopback or a Unix socket."""

    @property
    def takes_mail(self) -> bool:
        """Whether mail comes by it."""
        return self.service not in ("metrics", "web")

    @model_validator(mode="after")
    def _fit_together(self) -> ListenTable:
        asks = bool(self.authentication or self.require_tls or self.token_file) or self.client_certificate != "ignore"
        if self.service == "web" and (fault := fault_of_web_listener(self.endpoint, self.tls, asks=asks)):
            raise ValueError(fault)
        if self.token_file is not None and self.takes_mail:
            raise ValueError("token_file is for metrics listeners")
        if self.service == "metrics":
            if self.tls != "none" or self.authentication or is_proxied(self.endpoint):
                raise ValueError("a metrics listener has neither TLS nor logins, and no proxy before it")
            if self.token_file is None and not is_local(self.endpoint):
                raise ValueError("figures are for whoever connects: listen on loopback or a unix: socket, or name a token_file")
        if self.tls == "none" and (self.require_tls or self.client_certificate != "ignore"):
            raise ValueError('require_tls and client_certificate need tls = "starttls" or "implicit"')
        on_unix_socket = bare_endpoint(self.endpoint).startswith("unix:")
        if self.proxies is not None and (on_unix_socket or not is_proxied(self.endpoint)):
            raise ValueError("proxies are for haproxy: endpoints that are no Unix sockets")
        if self.proxies == ():
            raise ValueError("proxies without a network: nobody could connect")
        if self.service == "lmtp" and self.authentication:
            raise ValueError("nobody logs in to an lmtp listener")
        return self


Mechanism = Literal["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN", "EXTERNAL"]


class AuthenticationTable(Options):
    """How users log in."""

    mechanisms: tuple[Mechanism, ...] | None = None
    """The SASL mechanisms that may be offered. Absent: all that the accounts can serve."""
    without_tls: Literal["never", "loopback"] = "never"
    """Whether a client on loopback may log in on an unencrypted connection. Nobody else ever may."""
    domain: HostName | None = None
    """Completes a user name without a domain; of a domain that is the same as another it is that other, where the accounts are.
    Absent: `hostname` if it is one of the domains, else the first of them."""
    checkers: tuple[str, ...] = ()
    """More who can check a password, asked in this order after the accounts: strcred's descriptions, such as
    `file:/etc/passwords` (`twistd --help-auth`)."""
    threads: Count = 2
    """How many passwords are compared at once."""
    waiting: Count = 1000
    """How many wait for that; the next one hears 454."""
    remember: Duration = 60.0
    """A password that was right is remembered this long as a keyed hash, in memory alone, so that a client that logs in
    again and again costs little. 0: never."""
    login_seconds: Time = 60.0
    """How long a client that may not send without a login has until it has logged in; then 421."""
    failures_per_connection: Count = 3
    """Failed logins on a connection; then 421."""
    socket: FilePath | None = None
    """A Unix socket on which another program of this host asks whether a password is right, for `mailserver checkpassword`:
    `/run/mailserver/auth.sock`. Absent: there is none."""
    socket_group: str | None = Field(default=None, min_length=1)
    """The group of the host that may ask there, with the server's user and root, such as `dovecot`. Absent: these two alone."""

    @model_validator(mode="after")
    def _fit_together(self) -> AuthenticationTable:
        if self.socket_group is not None and self.socket is None:
            raise ValueError("socket_group without a socket")
        return self


class LockoutTable(Options):
    """What happens to those who guess passwords. The same wrong password again counts once."""

    account_failures: Count = 10
    """Wrong passwords for one account from one network (an IPv4 address, an IPv6 /64) within `window` before it is locked out
    there."""
    account_failures_everywhere: Count = 100
    """The same, from all networks together."""
    network_failures: Count = 30
    """Wrong passwords and user names from one network within `window` before it is locked out. The right password still lets in
    who has logged in from there within 30 days."""
    window: Time = 3600.0
    """How long a failure counts."""
    duration: Time = 900.0
    """How long the first lockout lasts; each further one within a day twice as long, up to a day."""
    delay: Annotated[Duration, Field(le=5)] = 1.0
    """The answer to a failure waits this long, twice as long with each further one of the network with this name, up to 5 s."""
    allow: tuple[Network, ...] = ()
    """Networks that are never locked out."""


class SubmissionTable(Options):
    """What users who have logged in may send."""

    senders: Literal["own", "any"] = "own"
    """`own`: the account's address, its subaddresses and aliases, and what it has been granted; else 553 at MAIL."""
    aliases: bool = True
    """Whether an alias that leads to the account is one of its own addresses."""
    header_from: bool = True
    """Whether the From field has to name an own address, too; else 550 after the data."""
    complete: bool = True
    """Whether missing Date, Message-ID and From fields are added (RFC 6409 section 8)."""
    messages_per_hour: Annotated[int, Field(le=COUNT_MOST)] = Field(default=300, ge=0)
    """Messages of one account within an hour; then 450. 0: any number, as for the others."""
    messages_per_day: Annotated[int, Field(le=COUNT_MOST)] = Field(default=2000, ge=0)
    """Messages of one account within a day."""
    recipients_per_hour: Annotated[int, Field(le=COUNT_MOST)] = Field(default=1000, ge=0)
    """Recipients of one account within an hour."""
    recipients_per_day: Annotated[int, Field(le=COUNT_MOST)] = Field(default=5000, ge=0)
    """Recipients of one account within a day."""
    new_recipients_per_hour: Annotated[int, Field(le=COUNT_MOST)] = Field(default=200, ge=0)
    """Recipients within an hour to whom the account has not written in the last 30 days."""
    new_recipients_per_day: Annotated[int, Field(le=COUNT_MOST)] = Field(default=500, ge=0)
    """The same, within a day."""


class PrivacyTable(Options):
    """What is told to others about users."""

    received: Literal["minimal", "full"] = "minimal"
    """Whether the Received field of a message from a user who has logged in names the client's address and host."""


class Component(Options):
    """A table that names a component; all other keys are the component's own options."""

    use: str
    """The component's name."""
    name: ComponentName | None = None
    """What the component is called in the log and in `mailserver status`; absent: what `use` says."""
    options: Any = Field(default=None, validation_alias=NOT_A_KEY)
    """All other keys, as the component's own checked options."""


class AccountsTable(Component):
    """Who exists and who may log in."""

    use: str = "file"
    """The realm component: `file` (accounts in a file that `mailserver user` writes), `system` (the host's users), or a
    plugin's name."""


class RouterTable(Component):
    """Where a recipient goes, before the `[domain]` tables are asked."""

    use: str = "domains"
    """`domains`: the tables alone; or the name of a plugin's router. What that does not know, the tables decide."""


def _separators(value: str) -> str:
    wrong = [character for character in value if character not in SEPARATORS]
    if wrong:
        raise ValueError(f"{wrong[0]!r} separates nobody: use some of {SEPARATORS}")
    return value


class PatternTable(Options):
    """A rule for addresses by convention. A name in braces stands for one character or more, in the domain for one label."""

    match: str
    """The address, or its local part alone, with names in braces: `{user}.{folder}`, `{folder}@{user}.example.org`."""
    user: str = "{user}"
    """The account, or its address, with names in braces from `match`."""
    folder: str = ""
    """The folder below the inbox (`lists.{tag}`), with names in braces from `match`; empty: the inbox."""


class DomainTable(Options):
    """A domain whose mail is delivered here. `[domain."*.example.org"]` stands for every name below example.org."""

    same_as: HostName | None = None
    """Another of the domains, whose accounts, aliases and all other names this one has, too: mail for `name@` here is mail for
    `name@` there. Such a table has no other key but `disabled`."""
    disabled: bool = False
    """Mail for it is refused with 550 5.2.1, but for `postmaster` and `abuse`. What was taken before is delivered."""
    catch_all: MailAddress | None = None
    """Who gets mail for names that do not exist. Absent: they are refused with 550 at RCPT."""
    subaddress: Annotated[str, AfterValidator(_separators)] = Field(default="+", max_length=4)
    """Each of its characters separates a user from a tag, as in `user+tag`; empty: none does."""
    postmaster: MailAddress | None = None
    """Who gets mail for `postmaster` (RFC 5321 section 4.5.1) and `abuse` (RFC 2142), where neither an account nor an alias
    has the name."""
    aliases: dict[str, tuple[AliasMember, ...]] = Field(default_factory=dict)
    """`name = ["address", …]`; a name alone is in the same domain, one address may stand without brackets."""
    disabled_aliases: tuple[str, ...] = ()
    """Those of the aliases for which mail is refused with 550 5.2.1."""
    pattern: tuple[PatternTable, ...] = ()
    """Rules for addresses by convention, tried in order after accounts and aliases."""

    @field_validator("aliases", mode="before")
    @classmethod
    def _one_address_alone(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: _listed(targets) for name, targets in value.items()}

    @field_validator("disabled_aliases")
    @classmethod
    def _of_the_aliases(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        known = {normal_local(alias) for alias in info.data.get("aliases", {})}
        for name in names:
            if "aliases" in info.data and normal_local(name) not in known:
                raise ValueError(f"there is no alias {name!r} here")
        return names


def _listed(targets: Any) -> Any:
    if isinstance(targets, str):
        return (targets,)
    return tuple(targets) if isinstance(targets, list) else targets


class DeliveryTable(Component):
    """How mail reaches its mailbox."""

    use: str = "maildir"
    """The delivery component: `maildir`, `lmtp`, `pipe`, `discard`, or a plugin's name."""


class RelayTable(Component):
    """Mail for other hosts."""

    use: str = "none"
    """`none` refuses it; `mx` sends it to the hosts of each domain, `smarthost` all of it to one host; `capture` puts it into a
    Maildir; or a plugin's name."""
    networks: tuple[Network, ...] = ()
    """Who may relay without authentication."""
    certificates: tuple[Fingerprint, ...] = ()
    """SHA-256 fingerprints of client certificates that may relay without authentication, where the listener asks for
    certificates. One that has expired or was revoked may not."""
    domains: tuple[RouteDomain, ...] = ()
    """Domains of others whose mail is taken from anybody and sent on, by the routes and the DNS: this host is a second mail
    exchanger of theirs, or stands before their own hosts. `".example.org"` is every name below example.org."""


class DNSTable(Options):
    """Which name servers are asked, and how. They have to do the recursion."""

    servers: tuple[NameServer, ...] = Field(default=(), max_length=8)
    """Asked in this order: `127.0.0.1`, `127.0.0.1:5353`, `[::1]:53`. Absent: those of /etc/resolv.conf, also when that
    changes."""
    validating: bool = False
    """The `servers` validate DNSSEC, and nobody on the way to them can forge: what they call authenticated may be believed,
    which DANE needs. Servers on this host, and those of a resolv.conf with `trust-ad`, may be believed without it."""
    trust: Literal["auto", "always", "never"] = "auto"
    """Whether what servers call authenticated is believed: `auto`, of those that may be believed and are found to validate;
    `always`, of every server, unexamined; `never`, which is without DANE."""
    signed_zones: tuple[ZoneName, ...] = Field(default=(".", "org"), min_length=1, max_length=4)
    """Zones that are signed. A server validates if it calls one of them authenticated, none of `unsigned_zones`, and refuses
    one of `bogus_zones`."""
    unsigned_zones: tuple[ZoneName, ...] = Field(default=("home.arpa", "10.in-addr.arpa"), max_length=4)
    """Zones that are not signed, and never will be."""
    bogus_zones: tuple[ZoneName, ...] = Field(default=("dnssec-failed.org", "rhybar.cz"), min_length=1, max_length=4)
    """Zones that are signed wrongly, and kept so by somebody."""
    timeout: Time | None = None
    """How long one server has for an answer. Absent: as /etc/resolv.conf says if its servers are used, else `5s`."""
    attempts: Annotated[int, Field(ge=1, le=3)] | None = None
    """How often each server is asked, at most 3 times. Absent: as /etc/resolv.conf says if its servers are used, else 2."""
    give_up: Time = 30.0
    """How long one question may take in all, the time that it waits for its turn included."""
    cache_entries: Count = 10_000
    """Answers that are kept, as long as their time to live allows; at most 16 MiB of them."""
    random_case: bool = False
    """Ask with letters in random case, which makes answers harder to forge. A few name servers answer that wrongly."""
    daily_look: bool = True
    """Look once a day at what the DNS shows for the domains (`mailserver dns`), and tell postmaster what has turned wrong. Only
    where an `mx` listener is open to others."""
    daily_trials: bool = True
    """With the daily look, try mail to ourselves, the certificate behind STARTTLS, an open relay, and DNS lists
    (`mailserver dns --try`)."""
    address_lists: tuple[HostName, ...] = Field(default=(), max_length=20)
    """DNS lists that are asked whether they hold this host's addresses, beside those of filters `dnsbl`."""
    public_addresses: tuple[PublicAddress, ...] = Field(default=(), max_length=32)
    """This host's addresses as the Internet sees them, for these looks: `203.0.113.7`. Absent: those that this host has itself;
    behind a NAT it does not know them."""


class QueueTable(Options):
    """How often and for how long delivery is tried."""

    retry: tuple[Annotated[Duration, Field(ge=1)], ...] = Field(default=(60.0, 300.0, 900.0, 3600.0, 14400.0), min_length=1)
    """Waiting times between attempts; the last one repeats."""
    warn: Time = 14400.0
    """The sender is told of a delay after this time."""
    expire: Time = EXPIRE_SECONDS
    """The message is returned after this time (RFC 5321 section 4.5.4.1: at least 4 to 5 days)."""

    @model_validator(mode="after")
    def _fit_together(self) -> QueueTable:
        if self.warn > self.expire:
            raise ValueError("warn is later than expire, so that nobody would ever be warned")
        return self


def _pickup_users(value: str) -> str:
    if value not in ("owner", "all") and not (value.startswith("group:") and len(value) > len("group:")):
        raise ValueError('must be "owner", "all" or "group:" and a name')
    return value


class PickupTable(Options):
    """The folder through which programs of this host hand mail over (`mailserver sendmail`).

    The table's former name, `[drop]`, is understood, too.
    """

    path: FilePath = "{data}/drop"
    """Where it is. Users who shall write into it must be able to reach it."""
    users: Annotated[str, AfterValidator(_pickup_users)] = "owner"
    """Who may put mail into it: `owner` (root and the server's user), `group:NAME`, or `all` users of the host."""
    domain: HostName | None = None
    """Completes addresses without a domain. Absent: `hostname` if it is one of the domains, else the first of them."""


class LogTable(Options):
    """What the server writes down."""

    format: Literal["text", "json"] = "text"
    """One line for each step, for people or for programs."""
    path: FilePath | None = None
    """The file, in a place where the server's user may write; absent: standard output, which a daemon does not have."""
    level: Literal["debug", "info", "warn", "error"] = "info"
    """The least important lines that are written. `warn` and `error` leave the steps out, also `login_failed`, which fail2ban
    reads; `debug` adds the filters that passed what they saw."""
    addresses: Literal["full", "domain", "hash", "none"] = "full"
    """How much of a mail address is written; `hash`: a keyed hash of the local part, by which one run's lines can be told
    apart."""
    retention_days: Annotated[int, Field(ge=1, le=3660)] = 30
    """How long the road of a message can be asked for with `mailserver explain`."""
    notes: bool = True
    """Write to postmaster what else only the log says: failures of which no sender can be told, doubtful certificates, a full
    disk, a helper process that is missing. At most one note of one matter in 24 hours."""


class FilterTable(Component):
    """A filter. Several are asked side by side, unless `after` or what they cost says otherwise."""

    use: str
    """The plugin's name."""
    name: ComponentName | None = None
    """What this filter is called in the log, in `explain` and in `after`. Absent: as the plugin; a second table of the same
    plugin is called `denylist#2`."""
    services: tuple[Service, ...] = Field(default=("mx", "submission", "lmtp"), min_length=1)
    """The listeners whose mail it sees."""
    on_error: Literal["defer", "skip", "refuse"] = "defer"
    """What its failure or its silence means."""
    deadline: Time | None = None
    """How long it may take; absent: `limits.filter_seconds`."""
    after: tuple[ComponentName, ...] = ()
    """Filters (their names) that are asked first. Once one of them has refused, this one is not asked."""
    mode: Literal["enforce", "shadow"] = "enforce"
    """`shadow`: it is asked and what it says is recorded, but not obeyed."""
    skippable: bool | None = None
    """Whether it is left out once a filter that is asked before it has said Accept. Absent: as the plugin says, mostly false."""
    hard: bool | None = None
    """Whether its refusal stands against another filter's Accept. Absent: as the plugin says, mostly false."""
    log_passes: bool = False
    """Whether it is recorded, too, that it had nothing to say."""
    failures: Count = 20
    """So many failures within `failure_window`, and it is not asked for the length of `pause`: `on_error` holds meanwhile. Then
    one call is a trial."""
    failure_window: Time = 60.0
    """How long a failure counts."""
    pause: Time = 30.0
    """How long it is left alone."""

    @model_validator(mode="after")
    def _fit_together(self) -> FilterTable:
        if self.skippable and self.hard:
            raise ValueError("skippable and hard: an Accept either takes it away or does not")
        return self


def _one_worker(value: int) -> int:
    if value != 1:
        raise ValueError("only 1 is available in this version")
    return value


def _folder(value: str) -> str:
    if value.startswith("{"):
        raise ValueError("must be a path")
    if os.path.normpath(value) in SYSTEM_FOLDERS:
        raise ValueError(f"{value} belongs to the system: name a folder of the server's own, such as /var/lib/mailserver")
    return value


def _folder_beside_data(value: str) -> str:
    return value if value.startswith("{data}") else _folder(value)


class Configuration(Options):
    """The whole file."""

    hostname: HostName
    """The name by which the server calls itself: in the greeting, in Received fields and in reports."""
    data: Annotated[FilePath, AfterValidator(_folder)]
    """The folder of the journal and the state; the default place of the mail."""
    keys: Annotated[FilePath, AfterValidator(_folder_beside_data)] = "{data}-keys"
    """The folder of secrets that belong into no backup of `data`; made when there is one to keep."""
    workers: Annotated[int, AfterValidator(_one_worker)] = 1
    """Processes that take mail."""
    listen: tuple[ListenTable, ...] = Field(min_length=1)
    tls: TLSTable = TLSTable()
    acme: AcmeTable | None = None
    authentication: AuthenticationTable = AuthenticationTable()
    lockout: LockoutTable = LockoutTable()
    web: WebTable = WebTable()
    submission: SubmissionTable = SubmissionTable()
    privacy: PrivacyTable = PrivacyTable()
    limits: LimitsTable = LimitsTable()
    accounts: AccountsTable = AccountsTable()
    router: RouterTable = RouterTable()
    domain: dict[DomainKey, DomainTable] = Field(default_factory=dict)
    delivery: DeliveryTable = DeliveryTable()
    relay: RelayTable = RelayTable()
    forward: ForwardTable = ForwardTable()
    route: tuple[RouteTable, ...] = ()
    dns: DNSTable = DNSTable()
    queue: QueueTable = QueueTable()
    policy: PolicyTable = PolicyTable()
    pickup: PickupTable = PickupTable()
    log: LogTable = LogTable()
    traces: TracesTable = TracesTable()
    filter: tuple[FilterTable, ...] = ()

    @property
    def relays(self) -> bool:
        """Whether any mail goes to other hosts."""
        return self.relay.use != "none" or bool(self.route)

    @model_validator(mode="after")
    def _fit_together(self) -> Configuration:
        if self.acme is not None and self.tls.certificate is not None:
            raise ValueError("tls.certificate and [acme]: the certificate comes from the one or the other")
        return self

    @property
    def by_acme(self) -> AcmeTable | None:
        """How certificates are got by ACME; None where they are not."""
        return self.acme or (AcmeTable() if self.tls.acme else None)

    @property
    def web_listeners(self) -> list[ListenTable]:
        """Those of service ``web``."""
        return [one for one in self.listen if one.service == "web"]

    @property
    def keys_path(self) -> str:
        """`keys` with the data folder put in."""
        return self.keys.replace("{data}", self.data.rstrip("/"), 1)

    @property
    def pickup_path(self) -> str:
        """`pickup.path` with the data folder put in."""
        return self.pickup.path.replace("{data}", self.data.rstrip("/"), 1)

    @property
    def home_domain(self) -> str:
        """What completes a name without a domain: `hostname` if it is one of the domains, else the first of them."""
        exact = [name for name, table in self.domain.items() if not name.startswith("*.") and table.same_as is None]
        own = self.domain.get(self.hostname)
        if own is not None and own.same_as is not None:
            return own.same_as
        return self.hostname if own is not None or not exact else exact[0]

    directory: str = Field(default="", validation_alias=NOT_A_KEY)
    """The folder of the file, from which relative paths count."""


__getattr__ = former_names(__name__)
