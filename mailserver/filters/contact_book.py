"""Contacts, rules and expected mail: in the records, and in memory as they stand there.

Rules and windows are few and stand in memory whole.  A user's contacts are read when his mail is judged, and kept for a minute:
so what an import brings counts within that time, and no site is too large for the memory.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeVar

from twisted.logger import Logger

from mailserver.api import Clock, IRecords
from mailserver.filters.contact_records import (
    Contact,
    HeldOrder,
    Window,
    contact_key,
    decoded,
    expected_key,
    hold_key,
    order_key,
    read_contact,
    read_hold,
    read_order,
    read_window,
)

__all__ = ["ContactBook"]

PAGE = 1000
USERS_MOST = 1000  # whose contacts stand in memory
CONTACTS_MOST = 200_000  # of all of them
FRESH_SECONDS = 60.0
WINDOWS_OF_ONE_MOST = 20
WINDOWS_MOST = 100_000
AGAIN_SECONDS = 30 * 86_400.0  # a contact to whom the user writes again is kept as such no more often than this

T = TypeVar("T")
Found = tuple[float, dict[str, Contact]]


class ContactBook:
    """`contacts_most` are kept of each user; beyond that those leave to whom he has not written for the longest time.

    Whoever changes something changes the records first.  Raises what `IRecords` raises.
    """

    log = Logger()

    def __init__(self, records: IRecords, *, clock: Clock, contacts_most: int) -> None:
        self.holds: dict[str, bool] = {}
        self.windows: dict[str, dict[str, Window]] = {}
        self._records = records
        self._clock = clock
        self._contacts_most = contacts_most
        self._users: OrderedDict[str, Found] = OrderedDict()
        self._changes = 0  # of rules and windows
        self._being_read: Counter[str] = Counter()  # users whose contacts are being read
        self._versions: dict[str, int] = {}  # how often one of theirs has changed meanwhile
        self._told: set[str] = set()

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock.seconds()

    async def read(self) -> None:
        """Take up rules and windows as the records have them."""
        while True:
            changes = self._changes
            holds = dict(await self._all("hold\t", read_hold))
            windows: dict[str, dict[str, Window]] = {}
            for one in await self._all("expected\t", read_window):
                windows.setdefault(one.user, {})[one.domain] = one
            if changes == self._changes:  # else somebody has changed something while it was read
                self.holds, self.windows = holds, windows
                return

    async def read_anew(self) -> None:
        """The records were changed: what is in memory, and what somebody has begun to read, does not count."""
        self._changes += 1
        self._users.clear()
        for user in self._being_read:
            self._versions[user] = self._versions.get(user, 0) + 1
        await self.read()

    # --- Contacts. ---

    async def contacts_of(self, user: str) -> dict[str, Contact]:
        """By subject.  Not to be changed."""
        found = self._users.get(user)
        if found is not None and 0 <= self.now - found[0] < FRESH_SECONDS:
            self._users.move_to_end(user)
            return found[1]
        self._being_read[user] += 1
        try:
            while True:
                version = self._versions.get(user, 0)
                contacts = {one.subject: one for one in await self._all(contact_key(user, ""), read_contact)}
                if version == self._versions.get(user, 0):  # else one has changed while they were read
                    break
        finally:
            self._being_read[user] -= 1
            if not self._being_read[user]:
                del self._being_read[user]
                self._versions.pop(user, None)
        self._users[user] = self.now, contacts
        while len(self._users) > USERS_MOST or (len(self._users) > 1 and self._size() > CONTACTS_MOST):
            self._users.popitem(last=False)
        return contacts

    def _size(self) -> int:
        return sum([len(contacts) for _, contacts in self._users.values()])

    async def keep(self, contact: Contact) -> Contact | None:
        """Keep a decision.  The contact that it replaces is returned.  Raises ValueError where there is no room for more."""
        contacts = await self.contacts_of(contact.user)
        before = contacts.get(contact.subject)
        if before is None:
            await self._make_room(contact.user, 1)
        await self._records.put(contact_key(contact.user, contact.subject), contact.octets())
        self._changed(contact.user, contact.subject, contact)
        return before

    async def learn(self, user: str, subjects: Sequence[str]) -> None:
        """The user has written to these.  What he has decided of them stands."""
        contacts, now = await self.contacts_of(user), self.now
        new = [one for one in dict.fromkeys(subjects) if one not in contacts][: self._contacts_most]
        old = [
            one for one in dict.fromkeys(subjects)
            if one in contacts and contacts[one].state == "written" and now - contacts[one].at > AGAIN_SECONDS
        ]  # fmt: skip
        if new:
            try:
                await self._make_room(user, len(new))
            except ValueError:
                return
        for subject in (*new, *old):
            written = Contact(user, subject, "written", at=now)
            before = contacts.get(subject)
            old_octets = None if before is None else before.octets()
            if await self._records.compare_and_put(contact_key(user, subject), old_octets, written.octets()):
                self._changed(user, subject, written)

    async def forget(self, user: str, subject: str) -> Contact | None:
        """The contact that was there."""
        before = (await self.contacts_of(user)).get(subject)
        if before is not None:
            await self._records.drop(contact_key(user, subject))
            self._changed(user, subject, None)
        return before

    async def clear(self, user: str) -> int:
        """Forget all that is kept of a user: for one who has left.  How many records that were."""
        keys = [hold_key(user), f"digest\t{user}"]
        for kind in ("contact", "expected", "order"):
            keys += [key for key, _ in await self._items(f"{kind}\t{user}\t")]
        keys += [key for key, value in await self._items("token\t") if _is_of(value, user)]
        dropped = 0
        for key in keys:
            if await self._records.get(key) is not None:
                await self._records.drop(key)
                dropped += 1
        self._users.pop(user, None)
        if user in self._being_read:
            self._versions[user] = self._versions.get(user, 0) + 1
        await self.read()
        return dropped

    async def _make_room(self, user: str, count: int) -> None:
        contacts = await self.contacts_of(user)
        surplus = len(contacts) + count - self._contacts_most
        if surplus <= 0:
            return
        written = sorted([one for one in contacts.values() if one.state == "written"], key=lambda one: one.at)
        if len(written) < surplus:
            raise ValueError(f"{user} has {self._contacts_most} contacts already: forget some")
        for one in written[:surplus]:
            if await self._records.compare_and_put(contact_key(user, one.subject), one.octets(), None):
                self._changed(user, one.subject, None)

    def _changed(self, user: str, subject: str, contact: Contact | None) -> None:
        if user in self._being_read:
            self._versions[user] = self._versions.get(user, 0) + 1
        found = self._users.get(user)
        if found is None:
            return
        contacts = dict(found[1])  # whoever judges by the others goes on with them
        if contact is None:
            contacts.pop(subject, None)
        else:
            contacts[subject] = contact
        self._users[user] = found[0], contacts

    # --- Rules. ---

    async def set_hold(self, scope: str, holds: bool | None, octets: bytes) -> None:
        """Whether mail from strangers is held in this scope; None: as the scope above says."""
        if holds is None:
            await self._records.drop(hold_key(scope))
            self.holds.pop(scope, None)
        else:
            await self._records.put(hold_key(scope), octets)
            self.holds[scope] = holds
        self._changes += 1

    # --- Expected mail. ---

    def window(self, user: str, domain_forms: Sequence[str]) -> Window | None:
        """The open window of the user for mail from one of these, else for mail from anybody."""
        windows = self.windows.get(user)
        if windows is None:
            return None
        now = self.now
        return next((one for name in (*domain_forms, "") if (one := windows.get(name)) is not None and now < one.until), None)

    async def expect(self, window: Window) -> None:
        """Open a window.  Raises ValueError where there are enough."""
        there = self.windows.get(window.user, {})
        open_now = [one for one in there.values() if one.until > self.now and one.domain != window.domain]
        if len(open_now) >= WINDOWS_OF_ONE_MOST or sum(map(len, self.windows.values())) >= WINDOWS_MOST:
            raise ValueError(f"{window.user} expects mail from {len(open_now)} sides already")
        await self._records.put(expected_key(window.user, window.domain), window.octets())
        self._changes += 1
        self.windows.setdefault(window.user, {})[window.domain] = window

    async def end_window(self, window: Window) -> bool:
        """Close it, unless it was opened anew meanwhile.  Whether that was so."""
        done = await self._records.compare_and_put(expected_key(window.user, window.domain), window.octets(), None)
        if done:
            self._changes += 1
            of_user = self.windows.get(window.user, {})
            if of_user.get(window.domain) == window:
                del of_user[window.domain]
                if not of_user:
                    del self.windows[window.user]
        return done

    async def end_old_windows(self) -> None:
        """Those that are over."""
        over = [one for windows in self.windows.values() for one in windows.values() if one.until <= self.now]
        for window in over:
            await self.end_window(window)

    # --- Orders about held mail. ---

    async def order(self, order: HeldOrder) -> None:
        """It stands until it has been carried out for what was on its way meanwhile, too."""
        await self._records.put(order_key(order.user, order.subject), order.octets())

    async def orders(self) -> list[HeldOrder]:
        """Those that stand."""
        return await self._all("order\t", read_order)

    async def end_order(self, order: HeldOrder) -> None:
        """Unless another one has taken its place."""
        await self._records.compare_and_put(order_key(order.user, order.subject), order.octets(), None)

    async def _all(self, prefix: str, read: Callable[[str, bytes], T]) -> list[T]:
        """What stands under keys that begin so.  A record that is none is told of once, and does nothing."""
        found: list[T] = []
        for key, value in await self._items(prefix):
            try:
                found.append(read(key, value))
            except ValueError as error:
                self._tell(key, error)
        return found

    async def _items(self, prefix: str) -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        first, before = prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)
        while page := await self._records.items(first, before, PAGE):
            found += page
            if len(page) < PAGE:
                break
            first = page[-1][0] + "\0"
        return found

    def _tell(self, key: str, error: ValueError) -> None:
        if key not in self._told and len(self._told) < PAGE:
            self._told.add(key)
            self.log.warn("the record {key!r} is damaged and does nothing: {error}", key=key[:200], error=str(error)[:200])


def _is_of(value: bytes, user: str) -> bool:
    try:
        return decoded(value).get("user") == user
    except ValueError:
        return False
