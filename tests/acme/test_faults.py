"""What a CA may say, and what may come between: nothing of it leaves us without a certificate for longer than it must."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.acme import authority as authorities
from mailserver.acme import order, visit
from mailserver.acme.allowance import GivenUp, TimeAllowance
from mailserver.acme.settings import AcmeSettings, AuthoritySettings
from mailserver.acme.visit import Visit, Visited
from mailserver.tls.identity import IdentityError
from mailserver.tls.issued import issued_pair, next_key, read_issued
from tests.acme.mock_authority import MockAuthority
from tests.rounds import rounds

HOST = "mail.example.org"
DAY = 86_400.0


class Shows:
    """Whatever the CA asks for; `shown` is what is shown now."""

    kind = "http-01"

    def __init__(self) -> None:
        self.shown: list[str] = []

    def show(self, challenges: Any) -> None:
        self.shown += [one.host for one in challenges]

    def withdraw(self, challenges: Any) -> None:
        for one in challenges:
            self.shown.remove(one.host)


class Killed(BaseException):
    """In the place of a SIGKILL."""


class WithMock(SynchronousTestCase):
    def setUp(self) -> None:
        self.ca = self.another()
        self.keys = os.path.abspath(self.mktemp())
        self.shows = Shows()
        self.ahead = 0.0  # what our clock is wrong by
        self.settings: dict[str, Any] = {}
        self.patch(order, "POLL_LEAST", 0.0)
        self.patch(order, "POLL_MOST", 0.01)

    def another(self) -> MockAuthority:
        found = MockAuthority(os.path.abspath(self.mktemp()))
        self.addCleanup(found.stop)
        return found

    def now(self) -> float:
        return time.time() + self.ahead

    def visit(self, *names: str, seconds: float = 60) -> Visit:
        names = names or (HOST,)
        first = AuthoritySettings(self.ca.directory)
        settings = AcmeSettings(**({
            "mail_names": names, "authorities": (first,), "contact": "postmaster@example.org", "ca_file": self.ca.ca_file,
        } | self.settings))  # fmt: skip
        return Visit(
            name="mail", names=names, required=frozenset(names[:1]), settings=settings, keys_directory=self.keys,
            allowance=TimeAllowance(seconds), answers=lambda _: self.shows, seen=lambda: self.fail("nobody asks the DNS"), now=self.now,
            chance=lambda: 0.5,
        )  # fmt: skip

    def count(self, word: str) -> int:
        return len(self.ca.said.get(word, ()))

    def later(self, seconds: float) -> None:
        self.ahead += seconds


class Wishes(WithMock):
    def test_a_profile_is_asked_for_where_the_ca_has_it_and_else_left_out_and_told(self) -> None:
        self.settings["profile"] = "shortlived"
        self.ca.profiles = {"classic": "", "shortlived": "six days"}
        self.ca.days = (-1, 6)
        found = self.visit().look()
        self.assertEqual(self.ca.said["newOrder"][0]["profile"], "shortlived")
        self.assertEqual(found.progress.remarks, [])
        self.assertTrue(2 * DAY < found.due - self.now() < 4 * DAY, "in the middle of its life")
        self.ca.profiles = {"classic": ""}
        found = self.visit().look(is_urgent=True)
        self.assertNotIn("profile", self.ca.said["newOrder"][1])
        self.assertIn("offers no profile shortlived (it has: classic)", found.progress.remarks[0])

    def test_an_external_account_binding_is_sent_and_its_key_is_not_shown(self) -> None:
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            file.write("c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0\n")
        self.settings["authorities"] = (AuthoritySettings(self.ca.directory, "kid-1", path),)
        self.assertTrue(self.visit().look().has_changed)
        account = self.ca.said["newAccount"][0]
        self.assertEqual(account["contact"], ["mailto:postmaster@example.org"])
        self.assertEqual(set(account["externalAccountBinding"]), {"protected", "payload", "signature"})
        self.assertNotIn("c2Vj", repr(authorities.Binding("kid-1", "c2VjcmV0")))
        os.unlink(path)
        self.later(1)
        found = self.visit().look(is_urgent=True)
        self.assertIn("No such file", found.progress.error)

    def test_a_contact_that_the_ca_does_not_want_is_left_out(self) -> None:
        self.ca.fault("newAccount", "invalidContact")
        self.assertTrue(self.visit().look().has_changed)
        self.assertNotIn("contact", self.ca.said["newAccount"][1])
        self.visit().look(is_urgent=True)
        self.assertEqual(self.count("newAccount"), 2)

    def test_another_contact_is_told_to_the_ca_and_the_account_stays(self) -> None:
        self.visit().look()
        self.settings["contact"] = "admin@example.org"
        self.ca.faults["newAccount"] = [(200, {"status": "valid"}, {"Location": f"{self.ca.url}/account/1"})]
        self.assertTrue(self.visit().look(is_urgent=True).has_changed)
        self.assertEqual(self.ca.said["account"][-1]["contact"], ["mailto:admin@example.org"])
        self.settings["contact"] = "other@example.org"
        self.ca.faults["newAccount"] = [(200, {"status": "valid"}, {"Location": f"{self.ca.url}/account/1"})]
        self.ca.fault("account", "invalidContact")
        self.assertTrue(self.visit().look(is_urgent=True).has_changed)


class Windows(WithMock):
    def window(self, start: float, end: float) -> None:
        moments = [datetime.datetime.fromtimestamp(self.now() + one, datetime.UTC).isoformat() for one in (start, end)]
        self.ca.window = (moments[0], moments[1])

    def test_it_is_renewed_within_the_cas_window_with_the_same_key_and_says_which_it_replaces(self) -> None:
        self.window(30 * DAY, 32 * DAY)
        first = self.visit().look()
        assert first.identity is not None
        self.assertTrue(30 * DAY <= first.due - self.now() <= 32 * DAY)
        self.later(29 * DAY)
        self.window(1 * DAY, 3 * DAY)
        self.assertFalse(self.visit().look().has_changed)
        self.later(3 * DAY + 60)
        self.window(-2 * DAY, -60)
        found = self.visit().look()
        self.assertTrue(found.has_changed)
        self.assertEqual(found.spki, first.spki)
        self.assertEqual(self.ca.said["newOrder"][1]["replaces"], authorities.certificate_id_of(first.identity.leaf))

    def test_a_window_that_is_over_has_it_renewed_at_once_and_is_asked_for_again_when_the_ca_says(self) -> None:
        self.window(30 * DAY, 32 * DAY)
        self.ca.retry_after = "7200"
        found = self.visit().look()
        asked = self.count("renewalInfo")
        self.later(7100)
        self.visit().look()
        self.assertEqual(self.count("renewalInfo"), asked)
        self.window(-2 * DAY, -1 * DAY)  # it has to revoke it
        self.later(200)
        found = self.visit().look()
        self.assertTrue(found.has_changed)

    def test_a_ca_that_does_not_tell_or_talks_nonsense_is_no_failure(self) -> None:
        found = self.visit().look()
        self.assertTrue(59 * DAY < found.due - self.now() < 70 * DAY, "after two thirds of its life")
        self.ca.window = ("yesterday", "tomorrow")
        self.later(2 * DAY)
        found = self.visit().look()
        self.assertEqual((found.progress.failures, found.has_changed), (0, False))
        self.assertTrue(57 * DAY < found.due - self.now() < 70 * DAY)

    def test_what_is_replaced_already_is_ordered_all_the_same(self) -> None:
        self.window(30 * DAY, 32 * DAY)
        self.visit().look()
        self.ca.fault("newOrder", "alreadyReplaced", 409)
        self.assertTrue(self.visit().look(is_urgent=True).has_changed)
        self.assertNotIn("replaces", self.ca.said["newOrder"][-1])

    def test_the_postmaster_hears_when_the_window_is_over_and_not_before(self) -> None:
        self.window(30 * DAY, 32 * DAY)
        self.visit().look()
        self.later(32 * DAY - 3600)
        self.ca.faults["newOrder"] = [(500, b"", {})] * 9
        found = self.visit().look()
        self.assertEqual((found.progress.failures, found.is_late), (1, False))
        self.later(3700)
        found = self.visit().look()
        self.assertEqual((found.progress.failures, found.is_late), (2, True))
        self.assertIn("it answers with 500", found.progress.error)


class Faults(WithMock):
    def test_nonces_that_are_refused_are_no_failure(self) -> None:
        self.ca.fault("newOrder", "badNonce", count=4)
        self.assertTrue(self.visit().look().has_changed)
        self.assertEqual(self.count("newOrder"), 5)

    def test_a_rate_limit_is_waited_for_as_long_as_the_ca_says(self) -> None:
        self.ca.fault("newOrder", "rateLimited", 429, Retry_After="7200")
        found = self.visit().look()
        self.assertIn("rateLimited: the mock says rateLimited", found.progress.error)
        self.assertTrue(7200 <= found.due - self.now() <= 7240)
        self.later(7000)
        self.visit().look()
        self.assertEqual(self.count("newOrder"), 1)
        self.later(400)
        self.assertTrue(self.visit().look().has_changed)

    def test_failures_are_tried_again_later_each_time_and_a_clock_that_jumps_delays_nothing_for_long(self) -> None:
        self.ca.faults["newOrder"] = [(503, b"", {})] * 9
        delays = []
        for _ in range(9):
            found = self.visit().look()
            delays.append(found.due - self.now())
            self.later(delays[-1] + 1)
        self.assertTrue(all(5 * 60 * 0.7 <= one <= 12 * 3600 * 1.3 for one in delays))
        self.assertGreater(delays[-1], 6 * 3600)
        self.later(-40 * DAY)
        self.assertTrue(self.visit().look().has_changed)

    def test_an_order_that_is_not_done_goes_on_at_the_next_look(self) -> None:
        self.ca.processing = 10**6
        self.patch(order, "POLLS_MOST", 3)
        found = self.visit().look()
        self.assertIn("the order stays processing", found.progress.error)
        self.ca._orders[0]["polls"] = 0
        self.later(3600)
        self.assertTrue(self.visit().look().has_changed)
        self.assertEqual(self.count("newOrder"), 1)

    def test_an_order_that_the_ca_has_forgotten_is_begun_anew(self) -> None:
        self.ca.processing = 10**6
        self.patch(order, "POLLS_MOST", 3)
        self.visit().look()
        self.ca.processing = 0
        self.ca.fault("order", "malformed", 404)
        self.later(3600)
        self.assertTrue(self.visit().look().has_changed)
        self.assertEqual(self.count("newOrder"), 2)

    def test_an_account_that_the_ca_has_forgotten_is_made_again_with_the_same_key(self) -> None:
        self.visit().look()
        self.ca.fault("newOrder", "accountDoesNotExist")
        self.assertTrue(self.visit().look(is_urgent=True).has_changed)
        self.assertEqual(self.count("newAccount"), 2)

    def test_the_second_ca_is_asked_when_the_first_fails_again_and_that_is_told(self) -> None:
        self.visit().look()
        second = self.another()
        with open(second.ca_file, "ab") as file:
            file.write(self.ca.https.pem)
        self.settings |= {
            "authorities": (AuthoritySettings(self.ca.directory), AuthoritySettings(second.directory)), "ca_file": second.ca_file,
        }  # fmt: skip
        self.ca.faults["newOrder"] = [(500, b"", {})] * 2
        found = self.visit().look(is_urgent=True)
        self.assertEqual((found.progress.failures, second.said.get("newOrder")), (1, None))
        self.later(3600)
        found = self.visit().look()
        self.assertTrue(found.has_changed)
        self.assertEqual(found.progress.directory, second.directory)
        self.assertIn("it comes from the second CA, as the first gave none", found.progress.remarks[0])

    def test_a_name_that_is_not_ours_is_left_out_for_a_day_and_the_hosts_own_never(self) -> None:
        self.ca.invalid_names = {"b.example.org"}
        found = self.visit(HOST, "a.example.org", "b.example.org").look()
        self.assertEqual(found.progress.error, "")
        assert found.identity is not None
        self.assertEqual(sorted(found.identity.names), ["a.example.org", HOST])
        self.assertIn("without b.example.org", found.progress.remarks[0])
        orders = self.count("newOrder")
        self.later(DAY + 60)
        found = self.visit(HOST, "a.example.org", "b.example.org").look()
        self.assertEqual((found.has_changed, found.progress.failures), (False, 0))  # the same certificate is not got each day
        self.assertEqual(self.count("newOrder"), orders + 1)
        self.ca.invalid_names = set()
        self.later(DAY + 60)
        found = self.visit(HOST, "a.example.org", "b.example.org").look()
        assert found.identity is not None
        self.assertIn("b.example.org", found.identity.names)
        self.ca.invalid_names = {HOST}
        found = self.visit(HOST, "a.example.org", "b.example.org").look(is_urgent=True)
        self.assertIn(f"{HOST}: connection: nobody is there", found.progress.error)
        self.assertEqual(self.shows.shown, [])

    def test_what_is_not_what_was_ordered_is_not_taken(self) -> None:
        other = self.ca.authority.leaf(HOST)
        chains: list[tuple[Callable[[list[str], Any], bytes], str]] = [
            (lambda names, key: other.certificate_pem, "for another key"),
            (lambda names, key: self.ca._issue(["evil.example"], key), f"without {HOST}"),
            (lambda names, key: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is no certificate"),
            (lambda names, key: b"", "is no certificate"),
        ]
        for issue, words in chains:
            self.ca.issue = issue
            found = self.visit().look()
            self.assertIn(words, found.progress.error)
            self.assertFalse(os.path.exists(issued_pair(self.keys, "mail").key))
            self.later(DAY)
        self.ca.issue = self.ca._issue
        self.ca.days = (-9, -2)
        self.assertIn("has expired", self.visit().look().progress.error)
        self.ca.days = (-1, 90)
        self.later(DAY)
        self.assertTrue(self.visit().look().has_changed)

    def test_answers_that_make_no_sense_never_end_and_addresses_without_https_are_failures_with_a_reason(self) -> None:
        self.patch(authorities, "ANSWER_SECONDS", 0.5)
        wrong: list[tuple[str, Any, str]] = [
            ("directory", b"[]", ""), ("directory", b"\xff" * 3000, ""), ("directory", {"newNonce": 3}, ""),
            ("directory", b" " * (authorities.ANSWER_OCTETS + 1), "too long"),
            ("directory", {"newNonce": "http://localhost:1/", "newAccount": "http://localhost:1/"}, "without https"),
            ("newOrder", {"status": 7}, "no order"), ("newOrder", b"null", ""), ("authorization", {}, "no authorization"),
            ("authorization", {"status": "pending", "identifier": {"value": HOST}, "challenges": ["x"]}, "makes no sense"),
            ("authorization", {"status": "pending", "identifier": {"value": HOST}, "challenges": []}, "offers no http-01"),
        ]  # fmt: skip
        for word, body, words in wrong:
            self.ca.faults[word] = [(200, body, {"Location": f"{self.ca.url}/order/0"})]
            found = self.visit().look()
            self.assertIsNone(found.identity, (word, body))
            self.assertIn(words, found.progress.error)
            self.assertLess(len(found.progress.error), 700)
            self.later(DAY)
        self.assertTrue(self.visit().look().has_changed)

    def test_nobody_is_led_elsewhere(self) -> None:
        self.ca.faults["directory"] = [(302, b"", {"Location": "http://127.0.0.1:1/"})]
        self.assertIn("sends us elsewhere (302)", self.visit().look().progress.error)

    def test_without_an_answer_there_is_an_end(self) -> None:
        self.patch(authorities, "ANSWER_SECONDS", 0.2)
        self.ca.before = lambda word: time.sleep(1) if word == "newOrder" else None
        found = self.visit().look()
        self.assertIn("no answer within", found.progress.error)


class Limits(WithMock):
    """What a CA counts: failed validations (five in an hour), certificates for the same names (five in a week), orders."""

    def looks(self, minutes: int, **wanted: Any) -> Visited:
        for _ in range(minutes):
            found = self.visit().look(**wanted)
            self.later(60)
        return found

    def test_a_clock_that_is_ahead_does_not_get_a_certificate_each_minute(self) -> None:
        self.ahead = 70 * DAY
        found = self.looks(8)
        self.assertEqual(self.count("finalize"), 4)
        self.assertIn("is the clock right?", found.progress.remarks[-1] if found.progress.remarks else "")
        self.assertGreater(found.due, self.now() + 6 * DAY)
        self.assertTrue(self.visit().look(is_urgent=True).has_changed, "by hand it is got all the same")

    def test_nor_does_a_ca_whose_suggestions_are_always_over_or_another_server_with_the_same_folder(self) -> None:
        self.ca.window = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z")
        self.looks(6)
        self.assertEqual(self.count("finalize"), 4)
        self.ca.window = None
        for number in range(6):
            self.visit("b.example.org" if number % 2 else "c.example.org").look()
            self.later(60)
        self.assertEqual(self.count("finalize"), 6)

    def test_certificates_of_a_day_are_renewed_as_ever(self) -> None:
        self.ca.days = (0, 1)
        for _ in range(8):
            self.visit().look()
            self.later(13 * 3600)
            self.ca.days = (int(self.ahead // DAY), int(self.ahead // DAY) + 1)
        self.assertGreaterEqual(self.count("finalize"), 4)

    def test_a_server_that_is_killed_in_each_try_waits_as_after_a_failure(self) -> None:
        self.ca.invalid_names = {HOST}

        def killed(challenges: Any) -> None:
            raise Killed

        withdraw, self.shows.withdraw = self.shows.withdraw, killed  # type: ignore[method-assign]
        for _ in range(8):  # one start every ten seconds, each of which fails a validation
            try:
                found = self.visit().look()
            except Killed:
                pass
            self.later(10)
        self.assertEqual(self.count("challenge"), 2)
        self.assertEqual(found.progress.failures, 1)
        self.assertIn("killed", found.progress.error)
        self.ca.invalid_names, self.shows.withdraw = set(), withdraw  # type: ignore[method-assign]
        self.shows.shown = []
        self.later(400)
        found = self.visit().look()
        self.assertEqual((found.has_changed, found.progress.begun, found.progress.failures), (True, 0, 0))

    def test_nothing_is_asked_for_that_cannot_be_remembered(self) -> None:
        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        write = visit.write_progress
        self.patch(visit, "write_progress", full)
        for _ in range(5):
            self.assertRaises(OSError, self.visit().look)
        self.assertEqual((self.count("newOrder"), self.count("newAccount")), (0, 0))
        self.patch(visit, "write_progress", write)
        self.assertTrue(self.visit().look().has_changed)

    def test_whatever_an_answer_raises_is_a_failure_that_is_waited_after(self) -> None:
        self.ca.faults["newOrder"] = [(201, b"[" * 200_000, {"Location": f"{self.ca.url}/order/0"})]
        found = self.looks(4)
        self.assertEqual((self.count("newOrder"), found.progress.failures), (1, 1))


class Kills(WithMock):
    """Killed at each request, and before and after each file that is written."""

    def killed_at(self, number: int) -> bool:
        """Whether there was such a step."""
        steps = [0]

        def counted() -> None:
            steps[0] += 1
            if steps[0] == number:
                raise Killed

        real_request = authorities._Network._send_request
        real_progress, real_issued = visit.write_progress, visit.write_issued

        def request(network: Any, *args: Any, **named: Any) -> Any:
            counted()
            return real_request(network, *args, **named)

        def progress(*args: Any) -> None:
            counted()
            real_progress(*args)
            counted()

        def issued(*args: Any) -> None:
            counted()
            real_issued(*args)
            counted()

        undo = [
            self.patch(authorities._Network, "_send_request", request),
            self.patch(visit, "write_progress", progress),
            self.patch(visit, "write_issued", issued),
        ]
        try:
            self.visit().look(is_urgent=True, roll="ready")
        except Killed:
            return True
        finally:
            for one in undo:
                one.restore()
        return False

    def test_whoever_comes_next_completes_it_with_a_key_that_fits(self) -> None:
        first = self.visit().look()
        self.assertTrue(first.has_changed)
        number, orders = 1, self.count("newOrder")
        while self.killed_at(number):
            try:
                read_issued(self.keys, "mail")
            except IdentityError as error:
                self.fail(f"killed at {number}: {error}")
            next_key(self.keys, "mail")
            self.later(1)
            found: Visited = self.visit().look()
            assert found.identity is not None
            self.assertEqual((found.progress.failures, found.progress.order, found.progress.is_urgent), (0, {}, False))
            self.assertNotEqual(found.next_spki, found.spki)
            number += 1 if rounds(1) > 1 else 3
        self.assertGreater(number, 12)
        self.assertLessEqual(self.count("newOrder") - orders, number + 3)  # some whose answer was lost

    def test_a_try_whose_time_is_over_writes_nothing_any_more(self) -> None:
        mine = self.visit()
        self.ca.before = lambda word: mine.allowance.end() if word == "certificate" else None
        try:
            mine.look()
        except GivenUp:
            pass
        self.assertIsNone(read_issued(self.keys, "mail"))
        self.ca.before = lambda word: None
        self.assertTrue(self.visit().look().has_changed)
        self.assertEqual(self.count("newOrder"), 1)
