"""References to an address or a domain in the configuration: changed with it, or reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mailserver.cli.output import Unable
from mailserver.config.draft import Draft
from mailserver.config.lines import KeyPath
from mailserver.mail.address import Address, AddressError, normal_domain, normal_local, normal_name
from mailserver.routing.domains import Domains, LocalDomain, subaddresses

__all__ = ["Renaming", "lead", "named", "set_disabled", "take_alias"]

ADDRESSES = ("catch_all", "postmaster")
DOMAIN_KEYS = (("authentication", "domain"), ("pickup", "domain"), ("drop", "domain"))  # the last: its former name


class Renaming:
    """Addresses that get other names (`addresses`, both in normal form), or all of a domain (`domain`: its name and the new one).

    To be made before the draft is changed: it is asked what the old names mean.
    """

    def __init__(self, draft: Draft, addresses: Mapping[str, str], domain: tuple[str, str] | None = None) -> None:
        self._draft = draft
        self._addresses = addresses
        self._domain = domain
        tables = draft.document.get("domain", {})
        self._domains = Domains({name: LocalDomain(same_as=table.get("same_as")) for name, table in tables.items()})
        self._separators = {normal_domain(name): table.get("subaddress", "+") for name, table in tables.items()}

    def follow(self) -> None:
        """Change all references to the old names.  Raises `Unchangeable`."""
        if self._domain is not None:
            self._follow_domain(*self._domain)
        for name, table in list(self._draft.document.get("domain", {}).items()):
            self._follow_keys(name, table)
            for alias, members in list(table.get("aliases", {}).items()):
                self._follow_members(name, alias, members)

    def _follow_domain(self, old: str, new: str) -> None:
        document = self._draft.document
        for name, table in document["domain"].items():
            if _is_domain(table.get("same_as"), old):
                self._draft.set(("domain", name), "same_as", new)
        for section, key in DOMAIN_KEYS:
            if _is_domain(document.get(section, {}).get(key), old):
                self._draft.set((section,), key, new)
        listed = document.get("accounts", {}).get("domains", [])
        if any(_is_domain(one, old) for one in listed):
            self._draft.set(("accounts",), "domains", [new if _is_domain(one, old) else one for one in listed])

    def _follow_keys(self, name: str, table: Mapping[str, Any]) -> None:
        for key in ADDRESSES:
            if key in table and (new := self._new(table[key], name)):
                self._draft.set(("domain", name), key, new)
        for n, pattern in enumerate(table.get("pattern", [])):
            user = pattern.get("user", "{user}")
            if "{" not in user and (new := self._new(user, name)):
                self._draft.set(("domain", name, "pattern", n), "user", new)
            elif self._domain is not None and _is_domain(user.rpartition("@")[2], self._domain[0]):
                self._draft.set(("domain", name, "pattern", n), "user", f"{user.rpartition('@')[0]}@{self._domain[1]}")

    def _follow_members(self, name: str, alias: str, members: str | list[str]) -> None:
        path = ("domain", name, "aliases")
        every = [members] if isinstance(members, str) else members
        new = [self._new(member, name) or member for member in every]
        if new != every:
            self._draft.set(path, alias, new[0] if isinstance(members, str) else new)
        called = self._addresses.get(f"{normal_local(alias)}@{_plain(name)}")
        if called is None:
            return
        local, _, domain = called.rpartition("@")
        if domain == _plain(name) and local != normal_local(alias):  # the account's own alias: it keeps and forwards
            self._draft.rename((*path, alias), local)
            disabled = self._draft.document["domain"][name].get("disabled_aliases", [])
            if any(normal_local(one) == normal_local(alias) for one in disabled):
                names = [local if normal_local(one) == normal_local(alias) else one for one in disabled]
                self._draft.set(path[:2], "disabled_aliases", names)

    def _new(self, text: str, here: str) -> str | None:
        """What an address is called now, None for one that stays.  Without an @ it is in the domain `here`."""
        try:
            address = Address.parse(text if "@" in text else f"{text}@{_plain(here)}", utf8=True)
            written = normal_domain(text.rpartition("@")[2]) if "@" in text else ""
            domain, local = self._domains.names_of(address.domain_key), normal_local(address.local)
        except AddressError:
            return None
        if self._domain is not None:
            # Whatever is not an address of the domain itself has another name: a second domain goes on to be the same.
            return f"{address.local}@{self._domain[1]}" if written == self._domain[0] else None
        for user, tag in ((local, ""), *subaddresses(local, self._separators.get(domain, ""))):
            called = self._addresses.get(f"{user}@{domain}")
            if called is not None:
                new_local, _, new_domain = called.rpartition("@")
                name = new_local + (local[len(user)] + tag if len(user) < len(local) else "")
                return name if "@" not in text and new_domain == _plain(here) else f"{name}@{new_domain}"
        return None


def take_alias(draft: Draft, old: str, new: str) -> None:
    """An alias of an account's new name: it goes where it only leads to the account, it stays where it also forwards.

    To be called before what names the account has followed it.  Raises `Unable` where it leads to others alone: the account would
    take its mail.
    """
    local, _, domain = new.rpartition("@")
    for name, table in draft.document.get("domain", {}).items():
        for alias, members in list(table.get("aliases", {}).items()):
            if _plain(name) != domain or normal_local(alias) != local:
                continue
            every = [members] if isinstance(members, str) else members
            own = [_is_address(one, old, name) or _is_address(one, new, name) for one in every]
            if not any(own):
                raise Unable(f"{new} is an alias: remove it first, or let it lead to the account")
            if all(own):
                draft.remove(("domain", name, "aliases", alias))
                # What is called so next is another one.
                set_disabled(draft, ("domain", name), alias, disabled=False)


def set_disabled(draft: Draft, place: tuple[str, str], alias: str, disabled: bool) -> bool:
    """Write the change into the draft; `place` is the domain's table.  Return whether the alias was disabled before."""
    names = draft.document["domain"][place[1]].get("disabled_aliases", [])
    others = [one for one in names if normal_local(one) != normal_local(alias)]
    was_disabled = len(others) < len(names)
    if was_disabled is not disabled:
        others += [alias] * disabled
        if others:
            draft.set(place, "disabled_aliases", others)
        else:
            draft.remove((*place, "disabled_aliases"))
    return was_disabled


def lead(draft: Draft, old: str, new: str) -> None:
    """An alias from an account's old name to its new one.  Raises `Unable` where the old domain is not among ours."""
    local, _, domain = old.rpartition("@")
    name = next((one for one in draft.document.get("domain", {}) if normal_domain(one) == domain), None)
    if name is None:
        raise Unable(f"there is no domain {domain} for the alias")
    new_local, _, new_domain = new.rpartition("@")
    draft.set(("domain", name, "aliases"), local, [new_local if new_domain == domain else new])


def _is_address(text: str, wanted: str, here: str) -> bool:
    try:
        address = Address.parse(text if "@" in text else f"{text}@{_plain(here)}", utf8=True)
        return normal_name(address) == wanted
    except AddressError:
        return False


def named(document: Any, words: frozenset[str], path: KeyPath = ()) -> Iterator[KeyPath]:
    """The places of a document that still say one of these words (lower case): an address; a domain, alone or in an address."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from named(value, words, (*path, key))
    elif isinstance(document, list):
        for n, value in enumerate(document):
            yield from named(value, words, (*path, n))
    elif isinstance(document, str) and (document.lower() in words or document.lower().rpartition("@")[2] in words):
        yield path


def _is_domain(text: Any, domain: str) -> bool:
    try:
        return isinstance(text, str) and normal_domain(text) == domain
    except AddressError:
        return False


def _plain(name: str) -> str:
    return normal_domain(name).removeprefix("*.")
