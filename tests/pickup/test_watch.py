"""The pickup folder's watch: when it looks, how many files it begins, what it tells, how it ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred

from mailserver.mail.faults import StorageBroken
from mailserver.pickup import pickup as watch
from mailserver.pickup.file_format import PickupFault
from mailserver.pickup.folder import FoundFile, Listing
from mailserver.pickup.pickup import (
    AGAIN_SECONDS,
    AT_ONCE,
    AT_ONCE_OF_A_USER,
    BAD_FULL_SECONDS,
    LOOK_SECONDS,
    SETTLED_SECONDS,
    Pickup,
)
from tests.pickup.test_hostile_files import HostileCase
from tests.receive.connections import Listener

LONG_AGO = 100.0


class WatchCase(HostileCase):
    """`listed` has the time of each listing; with `holds` set, a call of that function in a thread stays open in `held`."""

    def setUp(self) -> None:
        super().setUp()
        self.holds: Any = None
        self.held: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        if self.holds is None or function != self.holds:
            return super().run_in_thread(function, *arguments)
        self.held.append((Deferred(), function, arguments))
        return self.held[-1][0]

    def let_go(self) -> None:
        """The oldest call that is held comes to its end."""
        later, function, arguments = self.held.pop(0)
        super().run_in_thread(function, *arguments).chainDeferred(later)

    def calls(self, listener: Listener, name: str, instead: Callable[..., Any] | None = None) -> list[float]:
        """The times at which a method of the folder is called, from now on."""
        method, times = instead or getattr(self.folder, name), []

        def called(*arguments: Any, **options: Any) -> Any:
            times.append(listener.clock.seconds())
            return method(*arguments, **options)

        self.patch(self.folder, name, called)
        return times

    def changed(self, listener: Listener, seconds_ago: float) -> None:
        """The folder was changed then, by the test's clock."""
        when = listener.clock.seconds() - seconds_ago
        os.utime(self.path, (when, when))

    def quiet(self, **options: Any) -> tuple[Pickup, Listener]:
        """A pickup that has looked at its folder, which has not changed for long."""
        pickup, listener = self.started(**options)
        self.changed(listener, LONG_AGO)
        listener.clock.advance(LOOK_SECONDS)
        return pickup, listener

    def of_users(self, users: int) -> None:
        """The files belong to so many users, by turns."""
        listing = self.folder.listing

        def listed() -> Listing:
            found = listing()
            return Listing(tuple(FoundFile(one.name, int(one.name[:16], 16) % users) for one in found.files), found.misnamed, found.odd)

        self.patch(self.folder, "listing", listed)


class Looks(WatchCase):
    def test_a_folder_that_has_not_changed_is_not_listed_again(self) -> None:
        _, listener = self.quiet()
        listed = self.calls(listener, "listing")
        listener.clock.pump([LOOK_SECONDS] * 10)
        self.assertEqual(listed, [])
        self.changed(listener, 50.0)
        listener.clock.pump([LOOK_SECONDS] * 10)
        self.assertEqual(len(listed), 1)

    def test_a_change_is_looked_at_until_it_can_hide_no_other(self) -> None:
        _, listener = self.quiet()
        listed = self.calls(listener, "listing")
        self.changed(listener, 0.0)
        listener.clock.pump([SETTLED_SECONDS / 4] * 20)
        self.assertEqual(len(listed), 1, "one look a second; two seconds later it is settled")
        self.changed(listener, -LOOK_SECONDS)
        listener.clock.pump([LOOK_SECONDS] * 10)
        self.assertEqual(len(listed), 3, "at the change, and one second later")

    def test_a_folder_that_has_gone_is_told_once_and_listed_when_it_is_back(self) -> None:
        _, listener = self.quiet()
        away = self.path.with_name("away")
        self.path.rename(away)
        listener.clock.pump([LOOK_SECONDS] * 10)
        self.assertEqual(sum("cannot be read" in line for line in self.said), 1, self.said)
        away.rename(self.path)
        listed = self.calls(listener, "listing")
        listener.clock.pump([LOOK_SECONDS] * 10)
        self.assertEqual(len(listed), 1)

    def test_what_nobody_foresaw_is_told_with_its_traceback_and_tried_again(self) -> None:
        _, listener = self.quiet()
        with mock.patch.object(self.folder, "listing", side_effect=ValueError("no folder")):
            self.changed(listener, 50.0)
            listener.clock.advance(LOOK_SECONDS)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(sum("cannot be read" in line for line in self.said), 0)
        self.put("alice@example.org")
        self.changed(listener, 50.0)
        listener.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.served(listener), 1)

    def test_a_ring_during_a_look_leads_to_one_more_and_never_to_two_at_once(self) -> None:
        pickup, _ = self.quiet()
        self.holds = self.folder.listing
        pickup.look()
        pickup.look()
        pickup.look()
        self.assertEqual(len(self.held), 1)
        self.let_go()
        self.assertEqual(len(self.held), 1, "what came meanwhile may stand behind it")
        self.let_go()
        self.assertEqual(len(self.held), 0)

    def test_a_file_that_comes_during_a_look_is_found_by_the_ring(self) -> None:
        pickup, listener = self.quiet()
        listing = self.folder.listing()  # of an empty folder
        self.holds = self.folder.listing
        pickup.look()
        self.put("alice@example.org")
        pickup.look()
        later, _, _ = self.held.pop()
        later.callback(listing)
        self.assertEqual(len(self.held), 1)
        self.let_go()
        while self.held:
            self.let_go()
        self.assertEqual(self.served(listener), 1)

    def test_without_files_nothing_is_moved_and_nothing_synced(self) -> None:
        pickup, listener = self.quiet()
        taken, synced = self.calls(listener, "take"), self.calls(listener, "sync")
        pickup.look()
        self.assertEqual((taken, synced), ([], []))
        self.put("alice@example.org")
        pickup.look()
        self.assertEqual((len(taken), len(synced)), (1, 1))
        self.assertEqual((self.served(listener), self.said), (1, []))

    def test_the_daily_sweep_is_the_folders(self) -> None:
        pickup, listener = self.quiet()
        swept: list[float] = []
        self.patch(self.folder, "sweep", swept.append)
        self.successResultOf(Deferred.fromCoroutine(pickup.sweep()))
        self.assertEqual(swept, [listener.clock.seconds()])


class Left(WatchCase):
    def test_what_an_earlier_run_moved_is_made_durable_before_it_is_brought(self) -> None:
        pickup, listener = self.pickup()
        for _ in range(2):
            self.put("alice@example.org")
            self.take(listener)
        self.holds = self.folder.sync
        self.successResultOf(Deferred.fromCoroutine(pickup.start()))
        self.assertEqual((len(self.held), listener.store.taken), (1, []))
        self.let_go()
        self.assertEqual((len(self.held), self.served(listener)), (0, 2))
        self.stop(pickup)


class Room(WatchCase):
    def test_so_many_are_under_way_at_once_of_one_and_of_all(self) -> None:
        self.of_users(5)
        pickup, listener = self.started()
        listener.store.hold = True
        for number in range(10 * AT_ONCE):
            self.put("alice@example.org", number=number)
        listed = self.calls(listener, "listing")
        pickup.look()
        self.assertEqual(len(listener.store.taken), AT_ONCE)
        pickup.look()
        pickup.look()
        self.assertLessEqual(len(listed), 2, "without room nothing is looked for")
        for begun in range(AT_ONCE + 1, AT_ONCE + 20):
            listener.store.waiting.pop(0).callback(None)
            self.assertEqual(len(listener.store.taken), begun, "one ends, one begins")
        self.assertLessEqual(len(listed), 2, "they are known from the listing")
        listener.store.hold = False
        for waiting in listener.store.waiting:
            waiting.callback(None)
        self.assertEqual((self.served(listener), self.files()), (10 * AT_ONCE, []))

    def test_so_many_are_under_way_of_one(self) -> None:
        self.of_users(1)
        pickup, listener = self.started()
        listener.store.hold = True
        for number in range(3 * AT_ONCE_OF_A_USER):
            self.put("alice@example.org", number=number)
        pickup.look()
        self.assertEqual(len(listener.store.taken), AT_ONCE_OF_A_USER)
        listener.store.hold = False
        for waiting in listener.store.waiting:
            waiting.callback(None)
        self.assertEqual((self.served(listener), self.files()), (3 * AT_ONCE_OF_A_USER, []))

    def test_what_an_earlier_run_left_is_begun_with_the_same_room(self) -> None:
        for users, at_once in ((1, AT_ONCE_OF_A_USER), (5, AT_ONCE)):
            left = [FoundFile(f"{n}", n % users) for n in range(3 * AT_ONCE)]
            pickup, _ = self.pickup()
            begun: list[tuple[str, Deferred[None]]] = []

            async def bring(name: str, *, again: bool) -> None:
                self.assertTrue(again)
                begun.append((name, Deferred()))
                await begun[-1][1]

            self.patch(self.folder, "left_over", lambda left=left: left)
            pickup._handover.bring = bring  # type: ignore[method-assign]
            self.successResultOf(Deferred.fromCoroutine(pickup.start()))
            self.assertEqual([name for name, _ in begun], [one.name for one in left[:at_once]])
            for ended in range(2 * AT_ONCE):
                self.assertEqual(len(begun), min(at_once + ended, len(left)), "one ends, one begins")
                begun[ended][1].callback(None)
            stopped = Deferred.fromCoroutine(pickup.stop())
            for _, later in begun[2 * AT_ONCE :]:
                self.assertNoResult(stopped)
                later.callback(None)
            self.successResultOf(stopped)

    def test_of_whom_too_many_wait_no_more_are_taken_and_others_are(self) -> None:
        self.patch(watch, "WAITING_OF_A_USER", 3)
        self.of_users(2)
        pickup, listener = self.started()
        listener.store.answer = StorageBroken("no disk")
        for number in (0, 2, 4, 6, 8):
            self.put("alice@example.org", number=number)
            pickup.look()
        self.assertEqual(len(list(self.path.glob("*.mail"))), 2)
        self.assertEqual(sum("has 3 files waiting" in line for line in self.said), 1, self.said)
        listener.store.answer = None
        self.put("bob@example.org", number=1)
        pickup.look()
        self.assertEqual((self.served(listener), len(list(self.path.glob("*.mail")))), (1, 2))
        self.wait(listener, AGAIN_SECONDS)
        self.assertEqual((self.served(listener), self.files()), (6, []))


class Pauses(WatchCase):
    def test_each_try_comes_exactly_after_its_pause(self) -> None:
        _, listener = self.started()
        began = listener.clock.seconds() + LOOK_SECONDS
        listener.store.answer = StorageBroken("no disk")
        self.put("alice@example.org")
        self.changed(listener, LONG_AGO)
        opened = self.calls(listener, "open")
        listener.clock.advance(LOOK_SECONDS)
        self.changed(listener, LONG_AGO)  # nothing but the pause leads to the next look
        listener.clock.pump([LOOK_SECONDS] * 2000)
        self.assertEqual([time - began for time in opened], [0.0, 30.0, 90.0, 210.0, 450.0, 930.0, 1830.0])
        self.assertEqual(sum("has to wait" in line for line in self.said), 1, "it is told with the first")

    def test_after_a_restart_the_pauses_begin_anew(self) -> None:
        pickup, listener = self.pickup()
        began = listener.clock.seconds()
        listener.store.answer = StorageBroken("no disk")
        self.put("alice@example.org")
        self.take(listener)
        opened = self.calls(listener, "open")
        self.successResultOf(Deferred.fromCoroutine(pickup.start()))
        self.changed(listener, LONG_AGO)
        listener.clock.pump([LOOK_SECONDS] * 100)
        self.assertEqual([time - began for time in opened], [0.0, 30.0, 90.0])
        self.assertEqual(sum("has to wait" in line for line in self.said), 1)
        self.stop(pickup)

    def test_of_a_new_file_the_queue_is_not_asked(self) -> None:
        pickup, listener = self.started()
        asked: list[str] = []
        self.patch(pickup._handover, "_is_stored", asked.append)
        self.put("alice@example.org")
        pickup.look()
        self.assertEqual((self.served(listener), asked), (1, []))

    def test_moves_that_are_not_durable_have_a_first_try_of_their_own(self) -> None:
        _, listener = self.started()
        began = listener.clock.seconds() + LOOK_SECONDS
        self.put("alice@example.org")
        self.changed(listener, LONG_AGO)
        synced = self.calls(listener, "sync", mock.Mock(side_effect=[OSError(errno.EIO, "Input/output error"), None]))
        opened = self.calls(listener, "open")
        listener.store.answer = StorageBroken("no disk")
        listener.clock.pump([LOOK_SECONDS] * 100)
        self.assertEqual([time - began for time in opened], [30.0, 60.0])
        self.assertEqual([time - began for time in synced], [0.0, 30.0], "one that is good is enough")
        self.assertEqual(sum("has to wait" in line for line in self.said), 1)
        self.assertEqual(sum("cannot be read" in line for line in self.said), 1)

    def test_the_cause_is_told_in_words(self) -> None:
        for error, words in (
            (OSError(errno.EIO, "Input/output error", "/a/path"), "has to wait: OSError: Input/output error"),
            (OSError("no more"), "has to wait: OSError: no more"),
        ):
            pickup, _ = self.started()
            with mock.patch.object(self.folder, "open", side_effect=error):
                self.put("alice@example.org")
                pickup.look()
            self.assertTrue(self.said[-1].endswith(words), self.said)
            self.stop(pickup)

    def test_the_same_failure_of_ours_has_one_traceback_until_a_file_goes_through(self) -> None:
        pickup, listener = self.started()
        opens = self.folder.open

        def look(error: type[Exception] | None) -> int:
            with mock.patch.object(self.folder, "open", side_effect=error or opens):
                self.put("alice@example.org")
                pickup.look()
            return len(self.flushLoggedErrors(ValueError, KeyError))

        self.assertEqual([look(one) for one in (ValueError, ValueError, KeyError, KeyError, None, KeyError)], [1, 0, 1, 0, 0, 1])
        self.wait(listener, 2 * AGAIN_SECONDS)
        self.assertEqual((self.served(listener), self.files()), (6, []))


class Aside(WatchCase):
    def test_what_is_put_aside_is_forgotten_and_waits_for_nothing(self) -> None:
        pickup, listener = self.started()
        self.put("nobody@example.org", sender="nobody2@example.org")
        pickup.look()
        self.wait(listener, 600)
        self.assertEqual([name[:4] for name in self.files()], ["bad/"])
        self.assertFalse([line for line in self.said if "has gone" in line or "has to wait" in line], self.said)
        self.assertEqual(pickup._handover._progress, {})

    def test_what_cannot_be_put_aside_is_tried_again(self) -> None:
        for refusal, words in (
            ({"return_value": False}, "and its user has too many files in bad/"),
            ({"side_effect": OSError(errno.ENOSPC, "No space left on device")}, "and it cannot be put into bad/: No space left on device"),
        ):
            pickup, listener = self.started()
            with mock.patch.object(self.folder, "reject", **refusal):
                self.put("nobody@example.org", sender="nobody2@example.org")
                pickup.look()
            self.assertEqual([name[:6] for name in self.files()], ["taken/"])
            self.assertTrue(self.said[-1].endswith(words), self.said)
            self.wait(listener, AGAIN_SECONDS)
            (name,) = self.files()
            self.assertEqual(name[:4], "bad/")
            (self.path / name).unlink()
            self.stop(pickup)

    def test_one_that_has_gone_meanwhile_is_told_and_forgotten(self) -> None:
        pickup, listener = self.started()
        listener.store.answer = StorageBroken("no disk")
        self.put("alice@example.org")
        pickup.look()
        self.assertEqual(len(pickup._handover._progress), 1)
        for path in (self.path / "taken").iterdir():
            path.unlink()
        self.wait(listener, 600)
        self.assertEqual(sum("has gone from the pickup folder" in line for line in self.said), 1)
        self.assertEqual(pickup._handover._progress, {})

    def test_a_failure_of_ours_while_one_is_put_aside_keeps_no_other_waiting(self) -> None:
        pickup, listener = self.started()
        listener.store.hold = True
        self.put("alice@example.org", number=1)
        pickup.look()
        with (
            mock.patch.object(self.folder, "open", side_effect=PickupFault("no message")),
            mock.patch.object(self.folder, "reject", side_effect=ValueError),
        ):
            self.put("bob@example.org", number=2)
            pickup.look()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        listener.store.waiting[0].callback(None)
        self.assertEqual(len(self.files()), 1)

    def test_misnamed_ones_are_tried_again_when_there_may_be_room(self) -> None:
        for refusal, words in (
            ({"return_value": False}, "has no name of a message, and its user has too many files in bad/"),
            ({"side_effect": OSError(errno.EIO, "Input/output error")}, "has no name of a message, and it cannot be put into bad/: Input/output error"),
        ):
            pickup, listener = self.quiet()
            (self.path / "junk").write_bytes(b"")
            began = listener.clock.seconds()
            rejected = self.calls(listener, "reject", mock.Mock(**refusal))
            for _ in range(int(BAD_FULL_SECONDS) + 1):
                pickup.look()
                listener.clock.advance(LOOK_SECONDS)
            self.assertEqual([time - began for time in rejected], [0.0, BAD_FULL_SECONDS])
            self.assertEqual([line.partition("folder ")[2] for line in self.said], [words])
            self.said.clear()
            self.stop(pickup)
            (self.path / "junk").unlink()

    def test_one_that_is_put_into_bad_is_told(self) -> None:
        pickup, _ = self.started()
        (self.path / "junk").write_bytes(b"")
        pickup.look()
        self.assertEqual([line.partition("folder ")[2] for line in self.said], ["has no name of a message: it is in bad/ now"])

    def test_an_entry_that_comes_back_is_told_anew(self) -> None:
        pickup, _ = self.started()
        for _ in range(2):
            (self.path / "folder").mkdir()
            pickup.look()
            pickup.look()
            (self.path / "folder").rmdir()
            pickup.look()
        self.assertEqual(sum("is not a file" in line for line in self.said), 2)


class Ends(WatchCase):
    def test_one_that_was_never_started_ends_at_once_and_the_start_makes_the_folder(self) -> None:
        pickup, listener = self.pickup()
        self.put("alice@example.org")
        pickup.look()
        self.assertEqual((listener.store.taken, len(list(self.path.glob("*.mail")))), ([], 1), "a ring before the start")
        self.stop(pickup)
        for path in self.path.glob("*.mail"):
            path.unlink()
        for name in ("bad", "taken"):
            (self.path / name).rmdir()
        self.path.rmdir()
        self.successResultOf(Deferred.fromCoroutine(pickup.start()))
        self.assertTrue((self.path / "taken").is_dir())
        self.stop(pickup)

    def test_after_its_end_nothing_is_looked_for(self) -> None:
        pickup, listener = self.pickup()
        others = len(listener.clock.getDelayedCalls())
        self.successResultOf(Deferred.fromCoroutine(pickup.start()))
        self.stop(pickup)
        self.assertEqual(len(listener.clock.getDelayedCalls()), others)
        self.put("alice@example.org")
        pickup.look()
        self.wait(listener, 60)
        self.assertEqual((listener.store.taken, len(self.files())), ([], 1))

    def test_the_end_waits_for_a_look_that_has_begun(self) -> None:
        pickup, _ = self.started()
        self.holds = self.folder.listing
        self.put("alice@example.org")
        pickup.look()
        stopped = Deferred.fromCoroutine(pickup.stop())
        self.assertNoResult(stopped)
        self.let_go()
        self.successResultOf(stopped)

    def test_the_end_waits_for_each_that_is_under_way_and_begins_no_other(self) -> None:
        for fails in (False, True):
            pickup, listener = self.started()
            listener.store.hold = True
            for number in range(AT_ONCE_OF_A_USER + 5):
                self.put("alice@example.org", number=number)
            pickup.look()
            if fails:
                with mock.patch.object(self.folder, "listing", side_effect=OSError(errno.EIO, "Input/output error")):
                    listener.store.waiting.pop().callback(None)
                    pickup.look()
            begun = len(listener.store.taken)
            stopped = Deferred.fromCoroutine(pickup.stop())
            while listener.store.waiting:
                self.assertNoResult(stopped)
                listener.store.waiting.pop().callback(None)
            self.successResultOf(stopped)
            self.assertEqual(len(listener.store.taken), begun)
            for path in self.path.glob("*.mail"):
                path.unlink()
