"""Whose mail Postfix delivers, and under which names: domains, aliases, mailboxes."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass, field

from mailserver.config.values import host_name, mail_address
from mailserver.moving.house import House
from mailserver.moving.postfix_files import alias_members, words
from mailserver.moving.postfix_source import Line, PostfixSource

__all__ = ["DomainTables", "LocalUser"]

UID_MIN, UID_MAX = 1000, 59999
SEPARATORS = "+-_.=#~%!$&*/?^|"
CATCH_ALL = "postfix-catch-all"
BY_HAND = "put it into an alias, an account or a pattern of the new configuration"


@dataclass(frozen=True, slots=True)
class LocalUser:
    """A user of the host."""

    name: str
    uid: int
    home: str


@dataclass(slots=True)
class _Domain:
    aliases: dict[str, list[str]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)  # where each alias stood
    catch_all: list[str] = field(default_factory=list)


class DomainTables:
    """Reads the domains out of `source` into `house`.  `users` are those of the host; None: they are looked up."""

    def __init__(self, source: PostfixSource, house: House, *, users: Sequence[LocalUser] | None = None) -> None:
        self._source, self._house, self._reckoning = source, house, source.reckoning
        self._users = {one.name.lower(): one for one in (_users(source) if users is None else users)}
        self.origin = source.first_line(source["myorigin"]).lower() or source["myhostname"].lower()
        self.local = self._domains("mydestination")
        self._virtual = source.maps("virtual_alias_maps")
        self.alias_domains = [name for name in self._alias_domains() if name not in self.local]
        taken = {*self.local, *self.alias_domains}
        self._mailboxes = source.maps("virtual_mailbox_maps")
        self.mailbox_domains = [name for name in self._mailbox_domains() if name not in taken]
        taken |= {*self.mailbox_domains}
        self.relay_domains = [name for name in self._domains("relay_domains") if name not in taken]
        self._tables: dict[str, _Domain] = {}
        self._same_as: dict[str, str] = {}
        self.uses_system_accounts = False

    @property
    def primary(self) -> str:
        """The domain whose names all of mydestination have, "" where there is none."""
        if self.origin in self.local:
            return self.origin
        dotted = [name for name in self.local if "." in name and not name.startswith("localhost")]
        return (dotted or self.local or [""])[0]

    @property
    def ours(self) -> list[str]:
        """All domains that are delivered here."""
        return [*self.local, *self.alias_domains, *self.mailbox_domains]

    def carry(self, elsewhere: Sequence[str] = ()) -> None:
        """Write domains and accounts into the house.  `elsewhere` are domains that transport_maps send to other hosts."""
        self.local = [name for name in self.local if name not in elsewhere]
        self.mailbox_domains = [name for name in self.mailbox_domains if name not in elsewhere]
        self._tables = {name: _Domain() for name in self.ours}
        self._virtual_aliases()
        self._local_aliases()
        self._mailbox_accounts()
        self._local_accounts()
        self._senders()
        self._write()

    # --- which domains ---

    def _domains(self, parameter: str, listed: Sequence[str] | None = None) -> list[str]:
        found: list[str] = []
        for name in self._source.listed(parameter) if listed is None else listed:
            bare = name.lower().rstrip(".")
            try:
                host_name(bare.removeprefix(".") if parameter == "relay_domains" else bare)
            except ValueError as error:
                self._reckoning.left(parameter, name, str(error), "name the domain in [domain] by hand")
                continue
            if bare not in found:
                found.append(bare)
        if self._source.is_set(parameter):
            self._reckoning.carried(
                parameter,
                self._source.raw(parameter),
                "[relay] domains" if parameter == "relay_domains" else "[domain]",
            )
        return found

    def _alias_domains(self) -> list[str]:
        """Named, or by default the keys of virtual_alias_maps that are domains (virtual(5))."""
        keys = [line.key for line in self._virtual if "@" not in line.key and "." in line.key]
        if "$virtual_alias_maps" in self._source.raw("virtual_alias_domains"):
            return self._domains("virtual_alias_domains", keys)
        return self._domains("virtual_alias_domains")

    def _mailbox_domains(self) -> list[str]:
        if "$virtual_mailbox_maps" in self._source.raw("virtual_mailbox_domains"):
            return self._domains(
                "virtual_mailbox_domains", [one.key for one in self._mailboxes if "@" not in one.key and "." in one.key]
            )
        return self._domains("virtual_mailbox_domains")

    # --- aliases ---

    def _virtual_aliases(self) -> None:
        domain_lines = {*self.alias_domains, *self.mailbox_domains}
        for line in self._virtual:
            name = f"virtual_alias_maps: {line.where}"
            local, at, domain = line.key.rpartition("@")
            members = words(line.value)
            if not at and "." in line.key and (line.key in domain_lines or line.key in self.local):
                continue
            if not at:
                if not self.primary or self.origin not in self.local:
                    self._reckoning.left(
                        name, line.key, f"a name without a domain, and {self.origin} (myorigin) is not ours", BY_HAND
                    )
                    continue
                local, domain = line.key, self.primary
            if domain not in self._tables:
                where = (
                    "sends mail for others' addresses elsewhere"
                    if domain not in self.relay_domains
                    else "is in a domain that we only relay"
                )
                self._reckoning.left(
                    name, f"{line.key} {line.value}", f"it {where}", "[router] can do that (docs/plugins/router.md)"
                )
                continue
            self._virtual_alias(name, line, local, domain, members)
        if self._source.is_set("virtual_alias_maps"):
            self._reckoning.carried("virtual_alias_maps", self._source.raw("virtual_alias_maps"), "[domain.….aliases]")

    def _virtual_alias(self, name: str, line: Line, local: str, domain: str, members: Sequence[str]) -> None:
        table = self._tables[domain]
        whole = [one[1:].lower() for one in members if one.startswith("@")]
        if whole:
            other = self._same_name(whole[0])
            if local or len(members) > 1 or other not in self._tables or other == domain:
                self._reckoning.left(
                    name,
                    f"{line.key} {line.value}",
                    "a whole domain leads elsewhere",
                    "[router] can do that (docs/plugins/router.md)",
                )
            else:
                self._same_as[domain] = other
            return
        found = [one for one in (self._member(name, line.key, text, domain) for text in members) if one]
        if not found:
            if members:
                self._reckoning.left(
                    name, line.key, "none of its members can be carried over: its mail is refused here", BY_HAND
                )
            return
        if not local:
            table.catch_all = found
        else:
            table.aliases[local] = found
            table.origins[local] = line.where

    def _member(self, name: str, key: str, text: str, domain: str) -> str:
        """A member as the new configuration has it, "" where it cannot be one."""
        bare = text.strip("<>")
        if "@" not in bare:
            bare = f"{bare}@{self.origin}"
        try:
            address = mail_address(bare)
        except ValueError as error:
            self._reckoning.left(name, f"{key} {text}", str(error), BY_HAND)
            return ""
        return f"{address.local}@{self._same_name(address.domain)}"

    def _same_name(self, domain: str) -> str:
        """The names of mydestination are one domain."""
        return domain

    def _local_aliases(self) -> None:
        if not self.primary:
            return
        table, primary = self._tables[self.primary], self.primary
        for line in self._source.maps("alias_maps", aliases=True):
            name = f"alias_maps: {line.where}"
            if line.key in table.aliases:
                self._reckoning.same(name, line.key, "virtual_alias_maps come before it, as with Postfix")
                continue
            members = []
            for text in alias_members(line.value):
                members += self._local_members(name, line.key, text)
            if line.key.startswith("owner-"):
                why = "reports about the list's mail go to its senders, not to the owner"
                self._reckoning.left(name, line.key, why, "use a list manager, which has its own return paths")
            if members:
                table.aliases[line.key] = members
                table.origins[line.key] = line.where
            else:
                self._reckoning.left(
                    name,
                    line.key,
                    f"nothing of it could be carried over: {line.key}@{primary} is refused here",
                    BY_HAND,
                )
        if self._source.is_set("alias_maps"):
            self._reckoning.carried("alias_maps", self._source.raw("alias_maps"), f'[domain."{primary}".aliases]')
        self._reckoning.same(
            "alias_database", self._source.raw("alias_database"), "what newaliases makes; there is nothing to make here"
        )

    def _local_members(self, name: str, key: str, text: str) -> list[str]:
        value = f"{key}: {text}"
        if text.startswith("|"):
            self._reckoning.left(
                name, value, "aliases run no commands", '[delivery] use = "pipe", or a list manager by LMTP'
            )
            return []
        if text.startswith("/"):
            todo = (
                "let it lead to an account"
                if text != "/dev/null"
                else 'a filter that discards, or [delivery] use = "discard" for a test'
            )
            self._reckoning.left(name, value, "aliases write no files", todo)
            return []
        if text.startswith(":include:"):
            return self._included(name, key, text)
        if text.startswith("\\"):
            text = f"{text[1:]}@{self.primary}" if "@" not in text else text[1:]
        found = self._member(name, key, text, self.primary)
        return [found] if found else []

    def _included(self, name: str, key: str, text: str) -> list[str]:
        path = self._source.path(text.removeprefix(":include:"))
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line for line in file if not line.lstrip().startswith("#")]
        except (OSError, UnicodeError) as error:
            self._reckoning.left(name, f"{key}: {text}", f"cannot be read: {error}", BY_HAND)
            return []
        self._reckoning.carried(name, f"{key}: {text}", "its members as they are now: changes of the file are not seen")
        members = [one for line in lines for one in alias_members(line)]
        return [
            one
            for member in members
            for one in self._local_members(name, key, member)
            if not member.startswith(":include:")
        ]

    # --- accounts ---

    def _mailbox_accounts(self) -> None:
        base = self._source["virtual_mailbox_base"]
        for line in self._mailboxes:
            name = f"virtual_mailbox_maps: {line.where}"
            local, at, domain = line.key.rpartition("@")
            if not at:
                continue
            if domain not in self._tables:
                self._reckoning.left(
                    name, line.key, f"{domain} is none of the domains that are delivered here", BY_HAND
                )
            elif not local:
                self._reckoning.left(
                    name,
                    f"{line.key} {line.value}",
                    "a mailbox for all other names of a domain",
                    "make an account, and catch_all",
                )
            elif domain in self.mailbox_domains and self._may_be(name, local, domain):
                self._house.account(f"{local}@{domain}").mail = (
                    os.path.join(base, line.value) if base and line.value else ""
                )
        if self._source.is_set("virtual_mailbox_maps"):
            self._reckoning.carried("virtual_mailbox_maps", self._source.raw("virtual_mailbox_maps"), "accounts")

    def _may_be(self, name: str, local: str, domain: str) -> bool:
        """Whether an account of this name would get its mail: with Postfix aliases come first, here accounts do."""
        table, own = self._tables[domain], f"{local}@{domain}"
        members = table.aliases.get(local, table.catch_all)
        if not members or own in members:
            return True
        whose = "an alias" if local in table.aliases else "the catch-all of virtual_alias_maps"
        why = f"{whose} takes its mail first, as with Postfix; an account of this name would have it"
        self._reckoning.left(name, own, why, "add the account, and its own name to the alias, if it shall have mail")
        return False

    def _local_accounts(self) -> None:
        if not self.primary:
            return
        users = [one for one in self._users.values() if UID_MIN <= one.uid <= UID_MAX]
        table, primary = self._tables[self.primary], self.primary
        hidden = [one.name for one in users if not self._keeps(table, one.name.lower(), primary)]
        self.uses_system_accounts = not hidden and not self.mailbox_domains
        if not self.uses_system_accounts:
            for user in users:
                if self._may_be("mydestination", user.name.lower(), primary):
                    self._house.account(f"{user.name.lower()}@{primary}").mail = self._spool(user)
            reason = (
                "users of the host beside other mailboxes"
                if self.mailbox_domains
                else "an alias has the name of a user of the host"
            )
            todo = 'mailserver user password, or [accounts] use = "system" where only they have mail'
            self._reckoning.left(
                "mydestination: passwords",
                " ".join(one.name for one in users),
                f"they are accounts of their own now: {reason}",
                todo,
            )
        for user in users:
            if os.path.exists(os.path.join(self._source.path(user.home), ".forward")):
                why = "users' own forwarding files are not read"
                self._reckoning.left(
                    "forward_path", f"{user.home}/.forward", why, f"mailserver alias add {user.name}@{primary} …"
                )
        if "root" not in table.aliases and not table.catch_all:
            todo = f"mailserver alias add root@{primary} NAME"
            self._reckoning.left("mydestination: root", "root", "root has no mailbox here: its mail is refused", todo)

    def _keeps(self, table: _Domain, local: str, domain: str) -> bool:
        members = table.aliases.get(local, table.catch_all)
        return not members or f"{local}@{domain}" in members

    def _spool(self, user: LocalUser) -> str:
        box = self._source["home_mailbox"]
        return os.path.join(user.home, box) if box else os.path.join(self._source["mail_spool_directory"], user.name)

    def _senders(self) -> None:
        for line in self._source.maps("smtpd_sender_login_maps"):
            name = f"smtpd_sender_login_maps: {line.where}"
            for login in words(line.value):
                account = self._house.accounts.get(login.lower() if "@" in login else f"{login.lower()}@{self.primary}")
                if account is None:
                    self._reckoning.left(
                        name,
                        f"{line.key} {login}",
                        "there is no such account among those that were carried over",
                        f"mailserver user sender add {login} {line.key}",
                    )
                elif line.key != account.address and line.key not in account.senders:
                    account.senders.append(line.key)
        if self._source.is_set("smtpd_sender_login_maps"):
            self._reckoning.carried(
                "smtpd_sender_login_maps", self._source.raw("smtpd_sender_login_maps"), "senders of the accounts"
            )

    # --- the tables ---

    def _write(self) -> None:
        delimiters = self._source["recipient_delimiter"]
        kept = "".join([one for one in dict.fromkeys(delimiters) if one in SEPARATORS][:4])
        if kept != delimiters:
            self._reckoning.left(
                "recipient_delimiter", delimiters, f"separators here are some of {SEPARATORS}", "tell the users"
            )
        if self._source.is_set("recipient_delimiter"):
            self._reckoning.carried("recipient_delimiter", delimiters, "subaddress of each domain")
        domains = self._house.table("domain")
        self._tell_of_extensions(kept)
        for name in self.ours:
            table, made = self._tables[name], domains.setdefault(name, {})
            other = self._same_as.get(name) or (self.primary if name in self.local and name != self.primary else "")
            if other and not (table.aliases or table.catch_all):
                made["same_as"] = other
                continue
            made["subaddress"] = kept
            if len(table.catch_all) == 1:
                made["catch_all"] = table.catch_all[0]
            elif table.catch_all:
                made["catch_all"] = f"{CATCH_ALL}@{name}"
                table.aliases[CATCH_ALL] = table.catch_all
            aliases = self._written_aliases(name, table)
            if aliases:
                made["aliases"] = aliases
            if other and not table.catch_all:
                made["pattern"] = [
                    {"match": f"{{user}}{one}{{tag}}", "user": f"{{user}}@{other}", "folder": "{tag}"} for one in kept
                ]
                made["pattern"].append({"match": "{user}", "user": f"{{user}}@{other}"})

    def _tell_of_extensions(self, delimiters: str) -> None:
        """Postfix hands the tag of ``info+tag`` on to what info is an alias for; here it stays behind where that is elsewhere."""
        if not delimiters or "virtual" not in words(self._source["propagate_unmatched_extensions"]):
            return
        ours = set(self.ours)
        leaving = [
            f"{local}@{name}"
            for name, table in self._tables.items()
            for local, members in table.aliases.items()
            if any(member.rpartition("@")[2] not in ours for member in members)
        ]
        if leaving:
            value = f"{delimiters} {' '.join(leaving[:5])}{' …' if len(leaving) > 5 else ''}"
            why = "a tag, as in name+tag, is not handed on to members at other hosts"
            self._reckoning.left(
                "propagate_unmatched_extensions", value, why, "nothing, where nobody filters by it there"
            )

    def _written_aliases(self, name: str, table: _Domain) -> dict[str, list[str]]:
        written = {}
        for local, members in table.aliases.items():
            own = f"{local}@{name}"
            if members == [own]:
                continue  # an account that Postfix had to be told of beside a catch-all
            try:
                mail_address(own)
            except ValueError as error:
                self._reckoning.left(f"aliases: {table.origins.get(local, name)}", own, str(error), BY_HAND)
                continue
            written[local] = list(dict.fromkeys(members))
        return written


def _users(source: PostfixSource) -> list[LocalUser]:
    if not source.root:
        return [LocalUser(one.pw_name, one.pw_uid, one.pw_dir) for one in pwd.getpwall()]
    try:
        with open(source.path("/etc/passwd"), encoding="utf-8", errors="replace") as file:
            rows = [line.rstrip("\n").split(":") for line in file]
    except OSError:
        return []
    return [LocalUser(row[0], int(row[2]), row[5]) for row in rows if len(row) >= 7 and row[2].isdigit()]
