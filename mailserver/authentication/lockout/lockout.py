"""Keeps those out who guess passwords: by account from a network, by account everywhere, by network.

`mailserver.authentication.lockout.counting` counts; here is the memory of it, which survives a restart (`IStateStore`),
and the exemptions:

* Unix sockets, programs of this host, and the networks of `allow` are never locked out, and nothing is held against them.
* Guessing must not be a cheap way to keep others out: in a network from which an account has logged in within the last 30 days,
  only failures with that very account in that very network lock it out.  While its other guard (the network's lockout, or the
  account's everywhere) is up, nobody there can tell for whom that holds: `Standing`.

A state store that cannot be read makes every method raise `StorageBroken`: nobody can tell, so nobody logs in.

Logins go on side by side, and between what one of them reads and what it writes another may have written.  So each tally is
changed by `compare_and_put`, and counted again where another was quicker.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from mailserver.authentication.lockout.counting import (
    DAY_SECONDS,
    DELAY_MOST_SECONDS,
    DIGEST_OCTETS,
    NO_FAILURES,
    Guess,
    LockoutRules,
    Tally,
)
from mailserver.authentication.lockout.entries import (
    ACCOUNT,
    NETWORK,
    PAIR,
    LockoutEntry,
    LockoutSelection,
    key_of,
    parts_of,
    space_of,
)
from mailserver.authentication.standing import FREE, Standing
from mailserver.interfaces import IStateStore
from mailserver.mail.address import AddressError, normal_domain, normal_local
from mailserver.mail.faults import StorageBroken
from mailserver.mail.networks import NO_NETWORKS, Networks, network_name
from mailserver.mail.recent_tags import TAG_OCTETS, day_of, is_recent, with_recent

__all__ = ["Lockout"]

UNGUARDED = frozenset({"unix", "local"})
SURROGATE = re.compile("[\ud800-\udfff]")  # no database takes one
NAME_CHARACTERS = 320  # RFC 5321 section 4.5.3.1: more than any address; longer names are known by a hash
KNOWN_SPACE = "lockout.known"
KNOWN_DAYS = 30
KNOWN_NETWORKS = 64  # of one account, the latest
PAGE = 10_000
LISTED_MOST = 100_000  # entries of one scope that are looked at
TRIES = 100  # before it is believed that a tally cannot be changed


class LockoutClock(Protocol):
    """The time by which lockouts end, in seconds since the epoch."""

    def seconds(self) -> float: ...


class Lockout:
    """Who may try to log in, and who has to wait.

    `spaces(name)` is an `IStateStore`; `clock` is best one that nobody sets.  `note(id, step, **fields)` records a lockout under
    an id from `next_id`.  Passwords are told apart by a hash under `key`: by default a new one at each start, kept nowhere:
    the file with the counts says nothing about anybody's passwords.  `on_the_wall(moment)` tells people when that is.
    """

    def __init__(
        self,
        *,
        clock: LockoutClock,
        spaces: Callable[[str], IStateStore],
        rules: LockoutRules,
        allow: Networks = NO_NETWORKS,
        note: Callable[..., None] | None = None,
        next_id: Callable[[], str] = lambda: "-",
        key: bytes | None = None,
        on_the_wall: Callable[[float], float] = lambda moment: moment,
    ) -> None:
        self._clock = clock
        self._rules = rules
        self._allow = allow
        self._note = note
        self._next_id = next_id
        self._key = secrets.token_bytes(32) if key is None else key
        self._on_the_wall = on_the_wall
        self._limits = {
            PAIR: rules.account_failures,
            ACCOUNT: rules.account_failures_everywhere,
            NETWORK: rules.network_failures,
        }
        self._tallies = {scope: spaces(space_of(scope)) for scope in self._limits}
        self._known = spaces(KNOWN_SPACE)

    # --- for those who check passwords ---

    async def standing(self, peer_address: str, account: str) -> Standing:
        """How this account stands in the peer's network.  "" is an account not named yet."""
        if self._is_exempt(peer_address):
            return FREE
        # Three lockouts, and who can cause each:
        #
        # * The pair's own: failures with this name from this network.  Only somebody there can cause it, and names that no
        #   account has are counted as well.  So it tells nobody anything: the answer is no, and nothing is asked.
        # * The network's, by any names from there, and the account's, by this name from anywhere.  Strangers can cause both, so
        #   they must not keep out those who are known here; and a guesser must not see who is known.  So nobody is refused before
        #   the end: the exchange goes on for every name, `lets_in` says for whom it counts, and all others hear one answer at one
        #   moment.  The pair's lockout is here only one more reason why it does not count.
        name, network, now = account_name(account), network_name(peer_address), self._clock.seconds()
        is_locked = bool(name) and (await self._tally(PAIR, name, network)).is_locked(now)
        if (await self._tally(NETWORK, "", network)).is_locked(now):
            why = f"the network {network} is locked out"
        elif name and (await self._tally(ACCOUNT, name, "")).is_locked(now):
            why = "the account is locked out from networks that it has not been used from"
        else:
            return Standing(f"the account is locked out from {network}", lets_in=False) if is_locked else FREE
        lets_in = bool(name) and not is_locked and await self._is_known(name, network)
        return Standing(why, lets_in=lets_in, is_guarded=True, answer_seconds=DELAY_MOST_SECONDS)

    async def failed(self, peer_address: str, account: str, evidence: bytes) -> float:
        """A login has failed; return how many seconds after the client's last line it is told.

        `evidence` tells one wrong password from another; b"" where the mechanism shows nothing of it, then each counts.
        """
        if self._is_exempt(peer_address):
            return self._rules.answer_seconds(1)
        name, network, now = account_name(account), network_name(peer_address), self._clock.seconds()
        guess = Guess(now, digest(network), self._password(name, evidence))
        standing = await self.standing(peer_address, account)
        before = await self._tally(PAIR, name, network)
        # A pair that is locked and not guarded is not asked, so what still fails was under way when the lockout began: it counts,
        # or many guesses at once would be as good as one.  A pair that is locked and guarded is taken through to the end as often
        # as somebody likes: counting that, a guesser could prolong its lockout for ever.
        if name and not (standing.is_guarded and before.is_locked(now)):
            await self._count(PAIR, name, network, guess)
        # Guarded, no password was looked at but those of known pairs.  The other two tallies would count what nobody has
        # compared, right passwords of users who are new in this network among it, and their lockouts would prolong themselves.
        if standing.is_guarded:
            return standing.answer_seconds
        await self._count(NETWORK, "", network, replace(guess, source=digest(name)))
        if name:
            await self._count(ACCOUNT, name, "", guess)
        # The pause grows with passwords, not with tries: a program with an old password tries one for ever.
        others = [one for one in before.guesses if one.password != guess.password]
        return self._rules.answer_seconds(Tally(tuple(others)).counted(now, self._rules.window_seconds) + 1)

    async def succeeded(self, peer_address: str, account: str) -> None:
        """A login has succeeded: what came from this network against this account is forgotten, nothing else."""
        name, network = account_name(account), network_name(peer_address)
        if not name or self._is_exempt(peer_address):
            return
        await self._tallies[PAIR].drop(key_of(name, network))
        for scope, subject, source in ((ACCOUNT, (name, ""), digest(network)), (NETWORK, ("", network), digest(name))):
            # Only the guesses of this very pair: else a guesser with an account of his own would clear the tallies of others.
            await self._change(scope, *subject, lambda tally, of=source: tally.without(lambda guess: guess.source == of))  # type: ignore[misc]
        await self._remember(name, network)

    # --- for the administrator ---

    async def entries(self, selection: LockoutSelection, *, locked_only: bool = True) -> list[LockoutEntry]:
        """What is held against those who are meant."""
        now, found = self._clock.seconds(), []
        for scope in self._limits:
            for key, value, _ in await all_items(self._tallies[scope]):
                account, network = parts_of(key)
                tally = decoded(value)
                failures = tally.counted(now, self._rules.window_seconds)
                until = self._on_the_wall(tally.locked_until) if tally.is_locked(now) else 0.0
                lockouts = tally.remembered(now)
                if (until or ((failures or lockouts) and not locked_only)) and selection.means(account, network):
                    found.append(LockoutEntry(scope, account, network, failures, until, lockouts))
        return found

    async def clear(self, selection: LockoutSelection, *, by: str = "") -> list[LockoutEntry]:
        """Forget what is held against those who are meant, counts too, also of lockouts that are over; return what it was."""
        cleared = await self.entries(selection, locked_only=False)
        for entry in cleared:
            await self._tallies[entry.scope].drop(key_of(entry.account, entry.network))
            if entry.locked_until:
                self._tell("lockout_cleared", scope=entry.scope, account=entry.account, network=entry.network, by=by)
        return cleared

    # --- counting ---

    async def _count(self, scope: str, account: str, network: str, guess: Guess) -> None:
        limit, rules = self._limits[scope], self._rules
        before, after = await self._change(scope, account, network, lambda tally: tally.after(guess, limit=limit, rules=rules))
        if after.locked_until != before.locked_until:
            seconds = int(after.locked_until - guess.at)
            failures, lockouts = self._limits[scope], after.lockouts
            self._tell(
                "lockout", scope=scope, account=account, network=network, failures=failures, seconds=seconds, lockouts=lockouts
            )

    def _tell(self, step: str, **fields: Any) -> None:
        if self._note is not None:
            self._note(self._next_id(), step, **fields)

    async def _tally(self, scope: str, account: str, network: str) -> Tally:
        return decoded(await self._tallies[scope].get(key_of(account, network)))

    async def _change(
        self, scope: str, account: str, network: str, change: Callable[[Tally], Tally]
    ) -> tuple[Tally, Tally]:
        """What a tally was, and what the change has made of it."""
        tallies, key = self._tallies[scope], key_of(account, network)
        for _ in range(TRIES):
            octets = await tallies.get(key)
            before = decoded(octets)
            after = change(before)
            if after is before:
                return before, after
            lifetime = after.lifetime_seconds(self._clock.seconds(), self._rules.window_seconds)
            if await tallies.compare_and_put(key, octets, after.encode() if lifetime > 0 else None, lifetime):
                return before, after
        raise StorageBroken(f"the tally of {key!r} changes all the time")

    def _password(self, name: str, evidence: bytes) -> bytes:
        if not evidence:
            return secrets.token_bytes(DIGEST_OCTETS)
        return hashlib.blake2b(
            name.encode("utf-8", "surrogatepass") + b"\0" + evidence, key=self._key, digest_size=DIGEST_OCTETS
        ).digest()

    # --- exemptions ---

    def _is_exempt(self, peer_address: str) -> bool:
        return peer_address in UNGUARDED or peer_address in self._allow

    async def _is_known(self, name: str, network: str) -> bool:
        entries = await self._known.get(key_of(name, ""))
        return entries is not None and is_recent(entries, network_tag(network), self._today(), KNOWN_DAYS)

    async def _remember(self, name: str, network: str) -> None:
        key, is_done = key_of(name, ""), False
        while not is_done:
            found = await self._known.get(key)
            before = found or b""
            after = with_recent(before, network_tag(network), self._today(), days=KNOWN_DAYS, most=KNOWN_NETWORKS)
            is_done = after is before or await self._known.compare_and_put(key, found, after, KNOWN_DAYS * DAY_SECONDS)

    def _today(self) -> int:
        return day_of(self._clock.seconds())


async def all_items(state: IStateStore) -> Sequence[tuple[str, bytes, float]]:
    """The facts of a space, page by page; those of `LISTED_MOST` keys at most."""
    found = list(await state.items(most=PAGE))
    page = found
    while len(page) == PAGE and len(found) < LISTED_MOST:
        page = list(await state.items(page[-1][0] + "\0", most=PAGE))
        found += page
    return found


def decoded(value: bytes | None) -> Tally:
    """The tally, `NO_FAILURES` where there is none; one that a later version has written counts as none."""
    if value is None:
        return NO_FAILURES
    try:
        return Tally.decode(value)
    except ValueError:
        return NO_FAILURES


def account_name(account: str) -> str:
    """One name for all ways to write an account's; bounded, whatever a stranger gives as a user name."""
    local, at, domain = account.rpartition("@")
    if len(account) > NAME_CHARACTERS or SURROGATE.search(account):
        return "#" + digest(account).hex()
    try:
        return f"{normal_local(local)}@{normal_domain(domain)}" if at else normal_local(account)
    except AddressError:
        return account.lower()


def digest(text: str) -> bytes:
    """What stands for a name in the other side's tally."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_OCTETS).digest()


def network_tag(network: str) -> bytes:
    """What stands for a network among those of an account."""
    return digest(network)[:TAG_OCTETS]
