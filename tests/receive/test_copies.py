"""Whatever routes lead to a user's folders: each folder has one copy, put aside only where every route to it is."""

from __future__ import annotations

import os
import shutil
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.delivery.batch_format import message_of
from mailserver.delivery.open_maildirs import Maildirs
from mailserver.delivery.writer import MaildirWriter
from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Mailbox, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.mail.parcel import Destination, Parcel
from mailserver.mail.reply import Reply
from mailserver.mail.set_apart import Hold, HoldKind, Returned, SetApart
from mailserver.receive.copies import RecipientRoute, copies_for
from mailserver.receive.fates import DELIVERED, CopyFate, Fate
from tests.delivery.messages import files_below, read

PEER = Peer("192.0.2.1", 25000, "mx")
ODD = CopyFate(Fate.ASIDE, "odd")
FOLDERS = ((), ("x",), ("y",), ("x", "z"))

routes = st.lists(
    st.tuples(st.sampled_from(["alice", "bob"]), st.sampled_from(FOLDERS), st.booleans()), min_size=1, max_size=8
)


def route(number: int, user: str, folder: tuple[str, ...], aside: bool) -> RecipientRoute:
    recipient = Recipient(Address(f"r{number}", "example.org"))
    box = Mailbox(user, "example.org", folder, folder_must_exist=bool(folder))
    return RecipientRoute(recipient, Local(Address(f"r{number}", "example.org"), box), ODD if aside else DELIVERED)


class Copies(SynchronousTestCase):
    @settings(max_examples=80)
    @given(routes, st.sets(st.sampled_from([".x", ".y", ".x.z"])), st.integers(0, 8))
    def test_each_folder_has_one_copy_with_the_lines_of_its_mildest_and_first_route(
        self, given: list[tuple[str, tuple[str, ...], bool]], there: set[str], cut: int
    ) -> None:
        copies = copies_for([route(number, *one) for number, one in enumerate(given)])
        root = tempfile.mkdtemp()
        try:
            for user in ("alice", "bob"):
                for folder in there:
                    os.makedirs(f"{root}/{user}/{folder}")
            parts = [part for part in (copies.destinations[:cut], copies.destinations[cut:]) if part]
            for number, part in enumerate(parts):  # the second part has its attempt later
                self.write(root, part, again=number > 0)
            found, wanted = self.found(root), self.wanted(given, there)
            self.assertEqual(found if len(parts) == 1 else set(found), wanted if len(parts) == 1 else set(wanted))
            places = [name.rpartition("/new/")[0] for name in files_below(root) if "/new/" in name]
            self.assertEqual(len(places), len(set(places)))
        finally:
            shutil.rmtree(root)

    def write(self, root: str, destinations: tuple[Destination, ...], *, again: bool) -> None:
        envelope = Envelope("0123456789ABCDEF", PEER, None, (), 1700000000.0)
        parcel = Parcel(envelope, Content.of(b"Subject: x\r\n\r\n"), destinations, again)
        maildirs = Maildirs(path_of=lambda box: f"{root}/{box.user}", open_at_most=2)
        [results] = MaildirWriter(maildirs=maildirs).write([message_of(parcel, "mx")]).results
        maildirs.close()
        self.assertEqual([(index, error) for index, error, _ in results], [(one.index, 0) for one in destinations])

    def found(self, root: str) -> dict[str, str]:
        """Folder by folder, for whom the copy was delivered."""
        return {
            name.rpartition("/new/")[0]: read(f"{root}/{name}").partition(b"Delivered-To: ")[2].partition(b"@")[0].decode()
            for name in files_below(root)
            if "/new/" in name
        }

    def wanted(self, given: list[tuple[str, tuple[str, ...], bool]], there: set[str]) -> dict[str, str]:
        by_folder: dict[str, list[tuple[bool, int]]] = {}
        for number, (user, folder, aside) in enumerate(given):
            name = "".join(f".{part}" for part in folder)
            by_folder.setdefault(f"{user}/{name}" if name in there else user, []).append((aside, number))
        wanted: dict[str, str] = {}
        in_junk: dict[str, list[int]] = {}
        for folder_name, found in by_folder.items():
            aside, number = min(found)
            if aside:
                in_junk.setdefault(folder_name.partition("/")[0], []).append(number)
            else:
                wanted[folder_name] = f"r{number}"
        return wanted | {f"{user}/.Junk": f"r{min(numbers)}" for user, numbers in in_junk.items()}

    def test_another_host_is_held_only_where_every_way_to_the_address_is_put_aside(self) -> None:
        copies = copies_for(
            [to(0, "a@far.example", ODD), to(1, "b@far.example", ODD), to(2, "a@FAR.example", DELIVERED), to(3, "A@far.example", ODD)]
        )
        self.assertEqual([one.recipient.address.local for one in copies.destinations], ["r2", "r0", "r1", "r3"])
        odd = Hold(HoldKind.QUARANTINED, "odd")
        self.assertEqual(copies.set_apart, {2: odd, 3: odd})

    def test_what_is_refused_or_undecided_is_held_and_what_is_discarded_leads_nowhere(self) -> None:
        reply = Reply.of(550, "5.7.1", "no")
        fates = [Fate.WITHHELD, Fate.UNDECIDED, Fate.DISCARDED, Fate.REFUSED, Fate.RETURNED, Fate.ASIDE]
        for holds in (False, True):
            copies = copies_for([to(n, f"{n}@far.example", CopyFate(fate, "why"), reply) for n, fate in enumerate(fates)], holds=holds)
            self.assertEqual([one.recipient.address.local for one in copies.destinations], ["r5", "r1", "r0", "r4"])
            kinds = (HoldKind.QUARANTINED, HoldKind.UNDECIDED, HoldKind.REFUSED)
            wanted: dict[int, SetApart] = {n: Hold(kind, "why") for n, kind in enumerate(kinds)}
            self.assertEqual(copies.set_apart, wanted | {3: Returned(reply, "why")})

    def test_what_is_put_aside_for_a_mailbox_is_held_where_that_is_wanted(self) -> None:
        copies = copies_for([route(0, "alice", (), True), route(1, "bob", (), False)], holds=True)
        self.assertEqual(copies.set_apart, {1: Hold(HoldKind.QUARANTINED, "odd")})
        self.assertEqual(copies.in_junk, {})

    def test_a_refusal_for_a_mailbox_that_gets_the_message_another_way_changes_nothing(self) -> None:
        for best, apart in ((DELIVERED, {}), (ODD, {})):
            one = to_alice(0, best)
            copies = copies_for([to_alice(1, CopyFate(Fate.WITHHELD, "no")), one, to_alice(2, CopyFate(Fate.UNDECIDED, "later"))])
            self.assertEqual((copies.set_apart, len(copies.destinations)), (apart, 3))
            self.assertEqual({one.place for one in copies.destinations}, {copies.destinations[0].place})


def to_alice(number: int, fate: CopyFate) -> RecipientRoute:
    recipient = Recipient(Address(f"r{number}", "example.org"))
    return RecipientRoute(recipient, Local(Address("alice", "example.org"), Mailbox("alice", "example.org")), fate)


def to(number: int, address: str, fate: CopyFate, reply: Reply | None = None) -> RecipientRoute:
    return RecipientRoute(Recipient(Address(f"r{number}", "example.org")), Remote(Address.parse(address)), fate, reply)
