"""What Postfix's aliases lead to: virtual_alias_maps (virtual(5)) and alias_maps (aliases(5)), as aliases of domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mailserver.config.values import mail_address
from mailserver.moving.postfix_files import alias_members, words
from mailserver.moving.postfix_names import DomainNames
from mailserver.moving.postfix_source import Line, PostfixSource

__all__ = ["BY_HAND", "AliasTables", "DomainAliases"]

BY_HAND = "put it into an alias, an account or a pattern of the new configuration"
BY_ROUTER = "[router] can do that (docs/plugins/router.md)"


@dataclass(slots=True)
class DomainAliases:
    """The aliases of one domain: the members of each, and where it stood; `catch_all` has all other names."""

    aliases: dict[str, list[str]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    catch_all: list[str] = field(default_factory=list)

    def taken_by(self, own: str) -> str:
        """Who takes the mail of this address before its mailbox does, as with Postfix; "" where nobody does."""
        local = own.rpartition("@")[0]
        members = self.aliases.get(local, self.catch_all)
        if not members or own in members:
            return ""
        return "an alias" if local in self.aliases else "the catch-all of virtual_alias_maps"


class AliasTables:
    """`tables` has a table for each of our domains, `same_as` the domains all of whose names are those of another."""

    def __init__(self, source: PostfixSource, names: DomainNames) -> None:
        self._source, self._names, self._reckoning = source, names, source.reckoning
        self.tables = {name: DomainAliases() for name in names.ours}
        self.same_as: dict[str, str] = {}
        self._virtual_aliases()
        self._local_aliases()

    def _virtual_aliases(self) -> None:
        domain_lines = {*self._names.alias_domains, *self._names.mailbox_domains}
        for line in self._names.virtual:
            name = f"virtual_alias_maps: {line.where}"
            local, at, domain = line.key.rpartition("@")
            members = words(line.value)
            if not at and "." in line.key and (line.key in domain_lines or line.key in self._names.local):
                continue
            if not at:
                if not self._names.primary or self._names.origin not in self._names.local:
                    why = f"a name without a domain, and {self._names.origin} (myorigin) is not ours"
                    self._reckoning.left(name, line.key, why, BY_HAND)
                    continue
                local, domain = line.key, self._names.primary
            if domain not in self.tables:
                is_relayed = domain in self._names.relay_domains
                why = "it is in a domain that we only relay" if is_relayed else "it sends mail for others' addresses elsewhere"
                self._reckoning.left(name, f"{line.key} {line.value}", why, BY_ROUTER)
                continue
            self._virtual_alias(name, line, local, domain, members)
        self._source.carried("virtual_alias_maps", "[domain.….aliases]")

    def _virtual_alias(self, name: str, line: Line, local: str, domain: str, members: Sequence[str]) -> None:
        table = self.tables[domain]
        whole = [one[1:].lower() for one in members if one.startswith("@")]
        if whole:
            if local or len(members) > 1 or whole[0] not in self.tables or whole[0] == domain:
                self._reckoning.left(name, f"{line.key} {line.value}", "a whole domain leads elsewhere", BY_ROUTER)
            else:
                self.same_as[domain] = whole[0]
            return
        found = [one for one in (self._member(name, line.key, text) for text in members) if one]
        if not found:
            if members:
                why = "none of its members can be carried over: its mail is refused here"
                self._reckoning.left(name, line.key, why, BY_HAND)
            return
        if not local:
            table.catch_all = found
        else:
            table.aliases[local] = found
            table.origins[local] = line.where

    def _member(self, name: str, key: str, text: str) -> str:
        """A member as the new configuration has it, "" where it cannot be one."""
        bare = text.strip("<>")
        if "@" not in bare:
            bare = f"{bare}@{self._names.origin}"
        try:
            address = mail_address(bare)
        except ValueError as error:
            self._reckoning.left(name, f"{key} {text}", str(error), BY_HAND)
            return ""
        return f"{address.local}@{address.domain}"

    def _local_aliases(self) -> None:
        if not self._names.primary:
            return
        primary = self._names.primary
        table = self.tables[primary]
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
                why = f"nothing of it could be carried over: {line.key}@{primary} is refused here"
                self._reckoning.left(name, line.key, why, BY_HAND)
        self._source.carried("alias_maps", f'[domain."{primary}".aliases]')
        why = "what newaliases makes; there is nothing to make here"
        self._reckoning.same("alias_database", self._source.raw("alias_database"), why)

    def _local_members(self, name: str, key: str, text: str) -> list[str]:
        value = f"{key}: {text}"
        if text.startswith("|"):
            self._reckoning.left(name, value, "aliases run no commands", '[delivery] use = "pipe", or a list manager by LMTP')
            return []
        if text.startswith("/"):
            discards = 'a filter that discards, or [delivery] use = "discard" for a test'
            todo = discards if text == "/dev/null" else "let it lead to an account"
            self._reckoning.left(name, value, "aliases write no files", todo)
            return []
        if text.startswith(":include:"):
            return self._included(name, key, text)
        if text.startswith("\\"):
            text = f"{text[1:]}@{self._names.primary}" if "@" not in text else text[1:]
        found = self._member(name, key, text)
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
        found: list[str] = []
        for member in [one for line in lines for one in alias_members(line)]:
            if member.startswith(":include:"):  # which may be the same file
                self._reckoning.left(name, f"{key}: {member}", f"a list in the list {path} is not read", BY_HAND)
            else:
                found += self._local_members(name, key, member)
        return found
