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
from mailserver.receive.copies import RecipientRoute, copies_for
from tests.delivery.messages import files_below, read

PEER = Peer("192.0.2.1", 25000, "mx")
FOLDERS = ((), ("x",), ("y",), ("x", "z"))

routes = st.lists(
    st.tuples(st.sampled_from(["alice", "bob"]), st.sampled_from(FOLDERS), st.booleans()), min_size=1, max_size=8
)


def route(number: int, user: str, folder: tuple[str, ...], aside: bool) -> RecipientRoute:
    recipient = Recipient(Address(f"r{number}", "example.org"))
    box = Mailbox(user, "example.org", folder, folder_must_exist=bool(folder))
    return RecipientRoute(recipient, Local(Address(f"r{number}", "example.org"), box), "odd" if aside else "")


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
        def to(number: int, address: str, aside: str) -> RecipientRoute:
            return RecipientRoute(Recipient(Address(f"r{number}", "example.org")), Remote(Address.parse(address)), aside)

        copies = copies_for(
            [to(0, "a@far.example", "odd"), to(1, "b@far.example", "odd"), to(2, "a@FAR.example", ""), to(3, "A@far.example", "odd")]
        )
        self.assertEqual([one.recipient.address.local for one in copies.destinations], ["r2", "r0", "r1", "r3"])
        self.assertEqual(copies.held, {2: "odd", 3: "odd"})
