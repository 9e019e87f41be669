"""Which domains Postfix takes mail for, by the four address classes of its ADDRESS_CLASS_README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mailserver.config.values import host_name
from mailserver.moving.postfix_source import Line, PostfixSource

__all__ = ["DomainNames"]


class DomainNames:
    """`local` are those of mydestination, then those of virtual aliases, of virtual mailboxes, and those that are only relayed.

    A domain is in the first of them that names it.  `virtual` and `mailboxes` are the lines of virtual_alias_maps and
    virtual_mailbox_maps, whose keys may be domains.
    """

    def __init__(self, source: PostfixSource) -> None:
        self._source = source
        self.origin = source.first_line(source["myorigin"]).lower() or source["myhostname"].lower()
        self.local = self._names("mydestination")
        taken = {*self.local}
        self.virtual = source.maps("virtual_alias_maps")
        self.alias_domains = self._virtual_names("virtual_alias_domains", "virtual_alias_maps", self.virtual, taken)
        taken |= {*self.alias_domains}
        self.mailboxes = source.maps("virtual_mailbox_maps")
        self.mailbox_domains = self._virtual_names("virtual_mailbox_domains", "virtual_mailbox_maps", self.mailboxes, taken)
        taken |= {*self.mailbox_domains}
        self.relay_domains = [name for name in self._names("relay_domains") if name not in taken]

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

    def leave_out(self, elsewhere: Sequence[str]) -> None:
        """These are not delivered here: transport_maps sends them to other hosts."""
        self.local = [name for name in self.local if name not in elsewhere]
        self.mailbox_domains = [name for name in self.mailbox_domains if name not in elsewhere]

    def _names(self, parameter: str, listed: Iterable[str] | None = None) -> list[str]:
        relayed = parameter == "relay_domains"
        found: dict[str, None] = {}
        for name in self._source.listed(parameter) if listed is None else listed:
            bare = name.lower().rstrip(".")
            try:
                host_name(bare.removeprefix(".") if relayed else bare)
            except ValueError as error:
                self._source.reckoning.left(parameter, name, str(error), "name the domain in [domain] by hand")
                continue
            found[bare] = None
        self._source.carried(parameter, "[relay] domains" if relayed else "[domain]")
        return list(found)

    def _virtual_names(self, parameter: str, maps: str, lines: Sequence[Line], taken: set[str]) -> list[str]:
        """Named, or by default the keys of the maps that are domains (virtual(5))."""
        is_by_maps = f"${maps}" in self._source.raw(parameter)
        keys = [line.key for line in lines if "@" not in line.key and "." in line.key] if is_by_maps else None
        return [name for name in self._names(parameter, keys) if name not in taken]
