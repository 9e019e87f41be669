"""Who has mail at Postfix: virtual_mailbox_maps, the users of the host, and as whom each of them may send."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from mailserver.moving.house import House
from mailserver.moving.postfix_aliases import BY_HAND, AliasTables
from mailserver.moving.postfix_files import words
from mailserver.moving.postfix_names import DomainNames
from mailserver.moving.postfix_source import PostfixSource

__all__ = ["MailAccounts"]

UID_MIN, UID_MAX = 1000, 59999


@dataclass(frozen=True, slots=True)
class LocalUser:
    """A user of the host."""

    name: str
    uid: int
    home: str


class MailAccounts:
    """Writes the accounts into `house`.  `are_of_the_system`: no account is needed, the users of the host have the mail."""

    def __init__(self, source: PostfixSource, house: House, names: DomainNames, aliases: AliasTables) -> None:
        self._source, self._house, self._reckoning = source, house, source.reckoning
        self._names, self._tables = names, aliases.tables
        self.are_of_the_system = False
        self._of_mailboxes()
        if names.primary:
            self._of_the_host()
        self._senders()

    def _of_mailboxes(self) -> None:
        base = self._source["virtual_mailbox_base"]
        for line in self._names.mailboxes:
            name = f"virtual_mailbox_maps: {line.where}"
            local, at, domain = line.key.rpartition("@")
            if not at:
                continue
            if domain not in self._tables:
                self._reckoning.left(name, line.key, f"{domain} is none of the domains that are delivered here", BY_HAND)
            elif not local:
                why = "a mailbox for all other names of a domain"
                self._reckoning.left(name, f"{line.key} {line.value}", why, "make an account, and catch_all")
            elif domain in self._names.mailbox_domains and self._gets_its_mail(name, f"{local}@{domain}"):
                account = self._house.account(f"{local}@{domain}")
                account.mail = os.path.join(base, line.value) if base and line.value else ""
        self._source.carried("virtual_mailbox_maps", "accounts")

    def _gets_its_mail(self, name: str, own: str) -> bool:
        """Whether an account of this name would get what it gets there: with Postfix aliases come first, here accounts do."""
        whose = self._tables[own.rpartition("@")[2]].taken_by(own)
        if whose:
            why = f"{whose} takes its mail first, as with Postfix; an account of this name would have it"
            self._reckoning.left(name, own, why, "add the account, and its own name to the alias, if it shall have mail")
        return not whose

    def _of_the_host(self) -> None:
        primary = self._names.primary
        table = self._tables[primary]
        users = [one for one in _users(self._source) if UID_MIN <= one.uid <= UID_MAX]
        addresses = {f"{one.name.lower()}@{primary}": one for one in users}
        is_hidden = any(table.taken_by(own) for own in addresses)
        self.are_of_the_system = not is_hidden and not self._names.mailbox_domains
        if not self.are_of_the_system:
            for own, user in addresses.items():
                if self._gets_its_mail("mydestination", own):
                    self._house.account(own).mail = self._spool(user)
            is_beside = bool(self._names.mailbox_domains)
            reason = "users of the host beside other mailboxes" if is_beside else "an alias has the name of a user of the host"
            todo = 'mailserver user password, or [accounts] use = "system" where only they have mail'
            why = f"they are accounts of their own now: {reason}"
            self._reckoning.left("mydestination: passwords", " ".join(one.name for one in addresses.values()), why, todo)
        for user in addresses.values():
            if os.path.exists(os.path.join(self._source.path(user.home), ".forward")):
                why, todo = "users' own forwarding files are not read", f"mailserver alias add {user.name}@{primary} …"
                self._reckoning.left("forward_path", f"{user.home}/.forward", why, todo)
        if "root" not in table.aliases and not table.catch_all:
            todo = f"mailserver alias add root@{primary} NAME"
            self._reckoning.left("mydestination: root", "root", "root has no mailbox here: its mail is refused", todo)

    def _spool(self, user: LocalUser) -> str:
        box = self._source["home_mailbox"]
        return os.path.join(user.home, box) if box else os.path.join(self._source["mail_spool_directory"], user.name)

    def _senders(self) -> None:
        for line in self._source.maps("smtpd_sender_login_maps"):
            name = f"smtpd_sender_login_maps: {line.where}"
            for login in words(line.value):
                own = login.lower() if "@" in login else f"{login.lower()}@{self._names.primary}"
                account = self._house.accounts.get(own)
                if account is None:
                    why = "there is no such account among those that were carried over"
                    todo = f"mailserver user sender add {login} {line.key}"
                    self._reckoning.left(name, f"{line.key} {login}", why, todo)
                elif line.key != account.address and line.key not in account.senders:
                    account.senders.append(line.key)
        self._source.carried("smtpd_sender_login_maps", "senders of the accounts")


def _users(source: PostfixSource) -> list[LocalUser]:
    if not source.root:
        return [LocalUser(one.pw_name, one.pw_uid, one.pw_dir) for one in pwd.getpwall()]
    try:
        with open(source.path("/etc/passwd"), encoding="utf-8", errors="replace") as file:
            rows = [line.rstrip("\n").split(":") for line in file]
    except OSError:
        return []
    return [LocalUser(row[0], int(row[2]), row[5]) for row in rows if len(row) >= 7 and row[2].isdigit()]
