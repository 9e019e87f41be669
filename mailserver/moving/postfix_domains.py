"""Whose mail Postfix delivers, and under which names, as ``[domain]`` of the new configuration."""

from __future__ import annotations

from collections.abc import Sequence

from mailserver.config.values import mail_address
from mailserver.moving.house import House
from mailserver.moving.postfix_accounts import MailAccounts
from mailserver.moving.postfix_aliases import BY_HAND, AliasTables, DomainAliases
from mailserver.moving.postfix_files import words
from mailserver.moving.postfix_names import DomainNames
from mailserver.moving.postfix_source import PostfixSource

__all__ = ["DomainTables"]

SEPARATORS = "+-_.=#~%!$&*/?^|"
CATCH_ALL = "postfix-catch-all"


class DomainTables:
    """Reads domains, aliases and accounts out of `source`, and writes them into `house`.

    `elsewhere` are domains of `names` that transport_maps send to other hosts.
    """

    def __init__(self, source: PostfixSource, house: House, names: DomainNames, elsewhere: Sequence[str] = ()) -> None:
        self._source, self._house, self._reckoning = source, house, source.reckoning
        self.names = names
        names.leave_out(elsewhere)
        self._aliases = AliasTables(source, names)
        self.uses_system_accounts = MailAccounts(source, house, names, self._aliases).are_of_the_system
        self._write()

    def _write(self) -> None:
        delimiters = self._source["recipient_delimiter"]
        kept = "".join([one for one in dict.fromkeys(delimiters) if one in SEPARATORS][:4])
        if kept != delimiters:
            why = f"separators here are some of {SEPARATORS}"
            self._reckoning.left("recipient_delimiter", delimiters, why, "tell the users")
        if self._source.is_set("recipient_delimiter"):
            self._reckoning.carried("recipient_delimiter", delimiters, "subaddress of each domain")
        domains, primary = self._house.table("domain"), self.names.primary
        self._tell_of_extensions(kept)
        for name in self.names.ours:
            table, made = self._aliases.tables[name], domains.setdefault(name, {})
            other = self._aliases.same_as.get(name) or (primary if name in self.names.local and name != primary else "")
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
                user = f"{{user}}@{other}"
                tagged = [{"match": f"{{user}}{one}{{tag}}", "user": user, "folder": "{tag}"} for one in kept]
                made["pattern"] = [*tagged, {"match": "{user}", "user": user}]

    def _tell_of_extensions(self, delimiters: str) -> None:
        """Postfix hands the tag of ``info+tag`` on to what info is an alias for; here it stays behind where that is elsewhere."""
        if not delimiters or "virtual" not in words(self._source["propagate_unmatched_extensions"]):
            return
        ours = set(self.names.ours)
        leaving = [
            f"{local}@{name}"
            for name, table in self._aliases.tables.items()
            for local, members in table.aliases.items()
            if any(member.rpartition("@")[2] not in ours for member in members)
        ]
        if leaving:
            value = f"{delimiters} {' '.join(leaving[:5])}{' …' if len(leaving) > 5 else ''}"
            why = "a tag, as in name+tag, is not handed on to members at other hosts"
            todo = "nothing, where nobody filters by it there"
            self._reckoning.left("propagate_unmatched_extensions", value, why, todo)

    def _written_aliases(self, name: str, table: DomainAliases) -> dict[str, list[str]]:
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
