"""The pickup folder: a recipient who cannot be served now holds back no other, and is not asked for for ever."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.answers import Refused, Route
from mailserver.mail.envelope import Envelope
from mailserver.mail.faults import StorageBroken
from mailserver.mail.reply import Reply
from mailserver.pickup import folder as folder_module
from mailserver.pickup.folder import PickupFolder
from mailserver.pickup.pickup import AGAIN_SECONDS, AGAIN_SECONDS_MOST, LOOK_SECONDS, Pickup
from mailserver.pickup.progress import PickupProgress, PickupStep
from mailserver.receive.profile import ConnectionLimits
from tests.pickup.case import EXPIRE_SECONDS, PickupCase
from tests.receive.connections import Listener

GONE = Refused(Reply.of(550, "5.1.1", "Gone"), "no such user any more")
BUSY = Refused(Reply.of(450, "4.2.1", "Not now"), "the mailbox is busy")


class WaitingCase(PickupCase):
    def setUp(self) -> None:
        super().setUp()
        self.busy: set[str] = set()
        self.gone: set[str] = set()

    def pickup(self, **options: Any) -> tuple[Pickup, Listener]:
        pickup, listener = super().pickup(relays=True, **options)
        route = listener.router.route

        async def routes(address: Address) -> Sequence[Route]:
            if address.local in self.gone:
                return (GONE,)
            return (BUSY,) if address.local in self.busy else await route(address)

        listener.router.route = routes  # type: ignore[method-assign]
        return pickup, listener

    def served(self, listener: Listener) -> list[str]:
        """The recipients of what was committed, reports apart."""
        return [str(d.recipient.address) for e, _, every in listener.store.taken if e.sender is not None for d in every]

    def reports(self, listener: Listener) -> list[bytes]:
        return [octets for envelope, octets, _ in listener.store.taken if envelope.sender is None]

    def wait(self, listener: Listener, seconds: float) -> None:
        """Let time pass as the reactor does, at most a minute at a time."""
        while seconds > 0:
            listener.clock.advance(min(seconds, 60.0))
            seconds -= 60.0


class OneWaits(WaitingCase):
    def test_the_others_have_it_at_once_and_the_one_when_he_can_be_served(self) -> None:
        self.busy = {"carol"}
        pickup, listener = self.started()
        self.put("alice@example.org", "carol@elsewhere.example", "bob@example.org")
        pickup.look()
        self.assertEqual(self.served(listener), ["alice@example.org", "bob@example.org"])
        handover = pickup._handover
        self.assertEqual((len(handover._progress), len(handover._tried_at)), (0, 1), "the rest stands on the disk")
        self.busy = set()
        self.wait(listener, AGAIN_SECONDS + 2)
        self.assertEqual((len(handover._progress), len(handover._tried_at)), (0, 0))
        self.assertEqual(self.served(listener)[2:], ["carol@elsewhere.example"])
        self.assertEqual(self.files(), [])
        self.assertEqual(self.reports(listener), [])

    def test_a_refused_one_is_reported_at_once_and_once(self) -> None:
        self.busy = {"carol"}
        pickup, listener = self.started()
        self.put("nobody@example.org", "carol@elsewhere.example", "bob@example.org")
        pickup.look()
        (report,) = self.reports(listener)
        self.assertIn(b"rfc822; nobody@example.org", report)
        self.assertNotIn(b"carol", report.partition(b"Subject: x")[0])
        self.wait(listener, 10 * AGAIN_SECONDS_MOST)
        self.assertEqual(len(self.reports(listener)), 1)
        self.assertEqual(self.served(listener), ["bob@example.org"])

    def test_who_waits_until_the_queue_would_give_up_is_reported_and_the_file_goes(self) -> None:
        self.busy = {"carol"}
        pickup, listener = self.started()
        self.put("alice@example.org", "carol@elsewhere.example")
        pickup.look()
        self.wait(listener, EXPIRE_SECONDS - 60)
        self.assertEqual(self.reports(listener), [])
        self.wait(listener, AGAIN_SECONDS_MOST + 120)
        (report,) = self.reports(listener)
        self.assertIn(b"rfc822; carol@elsewhere.example", report)
        self.assertIn(b"4.2.1", report)
        self.assertIn(b"until its time was over", report)
        self.assertNotIn(b"rfc822; alice", report)
        self.assertEqual(self.files(), [])
        self.assertEqual(self.served(listener), ["alice@example.org"])

    def test_a_clock_that_is_set_gives_up_nobody_before_another_try(self) -> None:
        self.busy = {"carol"}
        pickup, listener = self.started()
        self.put("carol@elsewhere.example")
        pickup.look()
        self.clock_set_at = listener.clock.seconds() + 2 * EXPIRE_SECONDS
        listener.clock.advance(2 * EXPIRE_SECONDS)
        self.assertEqual((self.reports(listener), len(self.files())), ([], 1))
        self.busy = set()
        self.wait(listener, AGAIN_SECONDS_MOST + 60)
        self.assertEqual((self.served(listener), self.files()), (["carol@elsewhere.example"], []))

    def test_a_server_that_was_away_gives_up_nobody_before_another_try(self) -> None:
        self.busy = {"carol"}
        pickup, listener = self.started()
        self.put("carol@elsewhere.example")
        pickup.look()
        self.stop(pickup)
        later, after = self.pickup()
        after.clock.advance(listener.clock.seconds() + 2 * EXPIRE_SECONDS - after.clock.seconds())
        self.successResultOf(Deferred.fromCoroutine(later.start()))
        self.addCleanup(self.stop, later)
        self.assertEqual((self.reports(after), len(self.files())), ([], 1))
        self.wait(after, AGAIN_SECONDS_MOST + 60)
        self.assertEqual((len(self.reports(after)), self.files()), (1, []))

    def test_a_deferral_after_the_data_ends_in_a_report_too(self) -> None:
        pickup, listener = self.started()
        listener.store.answer = StorageBroken("no disk")
        self.put("alice@example.org")
        pickup.look()
        listener.clock.advance(EXPIRE_SECONDS)
        self.assertEqual(len(self.files()), 1, "the report cannot be kept either: nothing is lost")
        listener.store.answer = None
        self.wait(listener, AGAIN_SECONDS_MOST + 60)
        self.assertEqual(self.served(listener), ["alice@example.org"])
        self.assertEqual(self.reports(listener), [])

    def test_tries_become_rarer(self) -> None:
        self.busy = {"alice"}
        pickup, listener = self.started()
        self.put("alice@example.org")
        pickup.look()
        asked = len(listener.steps)
        self.wait(listener, 18_000)
        tries = sum(step == "handed_over" for _, step, _ in listener.steps[asked:])
        self.assertLess(tries, 30)
        self.assertGreater(tries, 20)


class Restarts(WaitingCase):
    def test_after_a_restart_only_those_who_wait_are_asked_for(self) -> None:
        for others in (["alice@example.org", "nobody@example.org"], ["alice@example.org"], ["nobody@example.org"]):
            self.busy = {"carol"}
            pickup, _ = self.pickup()
            self.successResultOf(_started(pickup))
            self.put(*others, "carol@elsewhere.example")
            pickup.look()
            self.stop(pickup)
            self.busy = set()
            again, after = self.pickup()
            self.successResultOf(_started(again))
            self.assertEqual(self.served(after), ["carol@elsewhere.example"])
            self.assertEqual(self.reports(after), [])
            self.assertEqual(self.files(), [])
            self.stop(again)

    def test_what_was_being_committed_at_a_crash_is_asked_of_the_queue(self) -> None:
        for is_stored in (True, False):
            self.busy = {"carol"}
            pickup, listener = self.pickup()
            self.put("alice@example.org", "carol@elsewhere.example")
            listener.store.hold = True
            self.successResultOf(_started(pickup))
            ((envelope, _, _),) = listener.store.taken
            self.stored = {envelope.id} if is_stored else set()
            pickup._timer.cancel()  # the server dies here
            self.busy = set()
            second, after = self.pickup()
            self.successResultOf(_started(second))
            expected = ["carol@elsewhere.example"] if is_stored else ["alice@example.org", "carol@elsewhere.example"]
            self.assertEqual(self.served(after), expected)
            self.assertNotIn(after.store.taken[0][0].id, self.stored, "the queue would refuse it")
            self.stop(second)
            self.assertEqual(self.files(), [])

    def test_a_crash_after_the_report_makes_no_second_one(self) -> None:
        self.busy = {"carol"}
        pickup, listener = self.pickup()
        self.put("nobody@example.org", "carol@elsewhere.example")
        listener.store.hold = True
        self.successResultOf(_started(pickup))
        self.stored = {listener.store.taken[0][0].id}
        pickup._timer.cancel()
        second, after = self.pickup()
        self.successResultOf(_started(second))
        self.assertEqual(self.reports(after), [])
        self.gone = {"carol"}
        self.wait(after, AGAIN_SECONDS_MOST + 60)
        ((envelope, report, _),) = after.store.taken
        self.assertNotIn(envelope.id, self.stored, "the queue would refuse it")
        self.assertIn(b"rfc822; carol@elsewhere.example", report, "the first one says nothing of her")
        self.assertNotIn(b"rfc822; nobody@example.org", report)
        self.stop(second)
        self.assertEqual(self.files(), [])

    def test_a_crash_between_the_only_report_and_the_removal_makes_no_second_one(self) -> None:
        pickup, listener = self.pickup()
        self.put("nobody@example.org")
        listener.store.hold = True
        self.successResultOf(_started(pickup))
        self.stored = {listener.store.taken[0][0].id}
        pickup._timer.cancel()
        second, after = self.pickup()
        self.successResultOf(_started(second))
        self.assertEqual((after.store.taken, self.files()), ([], []))
        self.stop(second)

    def test_what_the_queue_has_is_not_sent_again_where_the_report_beside_it_has_to_wait(self) -> None:
        pickup, listener = self.pickup()
        self.put("alice@example.org", "nobody@example.org")
        self.stored = {self.take(listener).partition(".")[0]}
        listener.store.answer = StorageBroken("no disk")
        self.successResultOf(_started(pickup))
        listener.store.answer = None
        self.wait(listener, AGAIN_SECONDS_MOST + 60)
        self.assertEqual((self.served(listener), len(self.reports(listener)), self.files()), ([], 1, []))
        self.stop(pickup)

    def test_who_was_refused_and_is_known_before_that_could_be_told_gets_it_under_another_id(self) -> None:
        self.gone = {"dave"}
        pickup, listener = self.started()
        commit = listener.store.commit

        def no_report(envelope: Envelope, *more: Any) -> Any:
            return fail(StorageBroken("no disk")) if envelope.sender is None else commit(envelope, *more)

        listener.store.commit = no_report  # type: ignore[method-assign]
        self.put("alice@example.org", "dave@elsewhere.example")
        pickup.look()
        self.gone = set()
        self.wait(listener, AGAIN_SECONDS_MOST + 60)
        self.assertEqual(self.served(listener), ["alice@example.org", "dave@elsewhere.example"])
        self.assertEqual(len({envelope.id for envelope, _, _ in listener.store.taken}), 2)
        self.assertEqual(self.files(), [])

    def test_what_has_not_the_name_of_a_taken_file_is_put_aside(self) -> None:
        pickup, listener = self.pickup()
        id = listener.profile.ids.next()
        for name in ("odd", f"odd.{id}", f"{id}.odd"):
            self.put("alice@example.org")
            os.rename(self.folder.taken_path(self.take(listener)), self.folder.taken_path(name))
        self.successResultOf(_started(pickup))
        self.assertEqual(self.files(), sorted([f"bad/{id}.odd", "bad/odd", f"bad/odd.{id}"]))
        self.assertEqual(listener.store.taken, [])
        self.stop(pickup)

    def test_progress_that_is_not_legible_loses_nobody(self) -> None:
        self.busy = {"carol"}
        pickup, _ = self.started()
        self.put("alice@example.org", "carol@elsewhere.example")
        pickup.look()
        self.stop(pickup)
        for damage in (b"", b"[]", b'{"done": 5}', b"\0" * 100, b"[" * 100_000):
            (progress,) = (self.path / "taken").glob("*.progress")
            progress.write_bytes(damage)
            again, after = self.pickup()
            self.successResultOf(_started(again))
            self.assertEqual(self.served(after), ["alice@example.org"])
            self.stop(again)
            self.stored |= {path.name.partition(".")[0] for path in (self.path / "taken").iterdir()}
        (progress,) = (self.path / "taken").glob("*.progress")
        progress.write_bytes(b"")
        self.busy = set()
        again, after = self.pickup()
        self.successResultOf(_started(again))
        self.assertEqual(self.served(after), ["alice@example.org", "carol@elsewhere.example"], "she may not be among those who had it")
        self.stop(again)

    def test_progress_without_its_file_goes(self) -> None:
        self.busy = {"carol"}
        pickup, _ = self.started()
        self.put("alice@example.org", "carol@elsewhere.example")
        pickup.look()
        self.stop(pickup)
        for path in (self.path / "taken").iterdir():
            if not path.name.endswith(".progress"):
                path.unlink()
        self.started()
        self.assertEqual(self.files(), [])

    def test_several_transactions_that_a_crash_cut_short_are_not_made_twice(self) -> None:
        pickup, listener = self.pickup(limits=ConnectionLimits(recipients=2))
        self.put(*[f"u{n}@elsewhere.example" for n in range(5)])
        commit = listener.store.commit

        def third_hangs(*arguments: Any) -> Any:
            listener.store.hold = len(listener.store.taken) == 2
            return commit(*arguments)

        listener.store.commit = third_hangs  # type: ignore[method-assign]
        self.successResultOf(_started(pickup))
        self.assertEqual(len(self.served(listener)), 5, "the third hangs at its commit")
        self.stored = {envelope.id for envelope, _, _ in listener.store.taken[1:2]}
        pickup._timer.cancel()
        second, after = self.pickup(limits=ConnectionLimits(recipients=2))
        self.successResultOf(_started(second))
        self.assertEqual(self.served(after), ["u4@elsewhere.example"])
        self.stop(second)


class AfterTheCommit(WaitingCase):
    def test_a_file_that_cannot_be_removed_is_not_sent_again(self) -> None:
        pickup, listener = self.started()
        unlink = os.unlink

        def cannot(path: str) -> None:
            raise OSError(5, "Input/output error", path)

        self.patch(os, "unlink", cannot)
        self.put("alice@example.org", "bob@example.org")
        pickup.look()
        self.wait(listener, 120)
        self.assertEqual(len(listener.store.taken), 1)
        self.patch(os, "unlink", unlink)
        self.wait(listener, AGAIN_SECONDS_MOST + LOOK_SECONDS)
        self.assertEqual((len(listener.store.taken), self.files()), (1, []))


def _started(pickup: Pickup) -> Deferred[None]:
    return Deferred.fromCoroutine(pickup.start())


class Remains(SynchronousTestCase):
    def test_progress_is_kept_when_its_name_is_on_the_disk_too(self):
        folder = PickupFolder(self.mktemp(), "owner")
        folder.make()
        progress, synced = PickupProgress(done={"a@example.org"}), []

        def sync(path):
            synced.append((os.path.samefile(path, folder.taken_path("")), os.listdir(path)))
            self.assertFalse(progress.is_kept)

        self.patch(folder_module, "sync_directory", sync)
        folder.keep("A.B", progress)
        self.assertEqual(synced, [(True, ["A.B.progress"])])
        self.assertTrue(progress.is_kept)
        self.assertEqual(folder.progress("A.B"), progress)

    def test_progress_whose_names_are_none_is_damaged(self):
        whole = json.loads(PickupProgress(done={"a"}).encode())
        for odd in ("ab", [1], [["a"]], {"a": 1}, None):
            for key in ("done", "told", "used"):
                self.assertRaises(ValueError, PickupProgress.decode, json.dumps({**whole, key: odd}).encode())
        self.assertEqual(whole["version"], 1)

    def test_a_step_that_is_none_is_damage(self):
        whole = json.loads(PickupProgress(delivery=PickupStep("A", ("a",)), report=PickupStep("B", ("b",))).encode())
        self.assertEqual(whole["delivery"], ["A", ["a"]])
        for odd in ("x", "xy", [], ["A"], ["A", ["a"], 3], [5, ["a"]], {"A": ["a"], "b": 1}):
            for key in ("delivery", "report"):
                self.assertRaises(ValueError, PickupProgress.decode, json.dumps({**whole, key: odd}).encode())

    def test_a_progress_that_a_power_cut_left_unfinished_goes_with_its_file(self):
        folder = PickupFolder(self.mktemp(), "owner")
        folder.make()
        for end in ("", ".progress", ".progress.new"):
            with open(folder.taken_path("A.B") + end, "w"):
                pass
        folder.remove("A.B")
        self.assertEqual(os.listdir(os.path.dirname(folder.taken_path(""))), [])
