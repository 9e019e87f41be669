"""Whoever wants in without the password: guesses at once, names that nobody has, octets that no mechanism knows."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import importlib.util
import os
import pwd
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from passlib import hash as hashes
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailserver.accounts.entry import Password
from mailserver.accounts.file import FileDirectory
from mailserver.accounts.table import AccountsFile, parse_accounts
from mailserver.authentication import password_checks
from mailserver.authentication.app_password_uses import AppPasswordUses
from mailserver.authentication.app_passwords import hash_app_password, new_app_password
from mailserver.authentication.authenticator import Authenticator, is_loopback
from mailserver.authentication.checkers import CheckerError, make_checker
from mailserver.authentication.passwords import needs_update
from mailserver.authentication.standing import FREE, Standing
from mailserver.config import ConfigurationError
from mailserver.interfaces import Denial, Denied, IStateStore, LoggedIn
from mailserver.mail.envelope import Peer, TLSFacts
from mailserver.sasl.exchanges import MECHANISMS
from mailserver.sasl.faults import LocalSASLError
from mailserver.sasl.scram_keys import derive_scram_keys, encode_scram_keys
from mailserver.sasl.steps import Challenge, ChannelBindings
from tests.any_octets import any_octets

PASSWORD = "correct horse battery"
HASH = "$argon2id$v=19$m=19456,t=2,p=1$ivF+j1GKEWKslRKi1DpHyA$FngUPjxK5XHsBq75DwjdymEmmM3e8vPnQMv4I4mAzAQ"
FINGERPRINT = "ab" * 32
SECRET = b"the server's"
BINDING = ChannelBindings({"tls-exporter": b"e" * 32})


async def secret_key() -> bytes:
    return SECRET


class Counting:
    """A lockout that shuts after `most` failures."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.failures: list[tuple[str, str, bytes]] = []
        self.successes: list[str] = []

    async def standing(self, peer_address: str, account: str) -> Standing:
        return Standing("locked out", lets_in=False) if len(self.failures) >= self.most else FREE

    async def failed(self, peer_address: str, account: str, evidence: bytes) -> float:
        self.failures.append((peer_address, account, evidence))
        return 0.0

    async def succeeded(self, peer_address: str, account: str) -> None:
        self.successes.append(account)


class Broken:
    """A lockout that cannot tell."""

    def __init__(self, **broken: bool) -> None:
        self.broken = broken

    async def standing(self, peer_address: str, account: str) -> Standing:
        if self.broken.get("standing"):
            raise OSError("the disk is gone")
        return FREE

    async def failed(self, peer_address: str, account: str, evidence: bytes) -> float:
        if self.broken.get("failed"):
            raise OSError("the disk is gone")
        return 0.0

    async def succeeded(self, peer_address: str, account: str) -> None:
        if self.broken.get("succeeded"):
            raise OSError("the disk is gone")


def peer(**facts: Any) -> Peer:
    """A client with TLS."""
    return Peer("192.0.2.7", 4711, "submission", tls=TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", **facts))


class Case(SynchronousTestCase):
    """The accounts of a file; comparing costs nothing, and is counted."""

    def setUp(self) -> None:
        self.directory_path = os.path.abspath(self.mktemp())
        os.mkdir(self.directory_path)
        self.path = f"{self.directory_path}/accounts.toml"
        self.clock = Clock()
        self.compared: list[str | None] = []
        self.held: list[Deferred[Any]] | None = None
        self.app_password = new_app_password()
        self.lockout: Any = Counting()
        self.write(
            '[account."alice@example.org"]\n'
            f'password = "{HASH}"\n'
            f'scram = "{encode_scram_keys(derive_scram_keys(PASSWORD, salt=b"s" * 16, iterations=4096))}"\n'
            f'certificates = ["{FINGERPRINT}", "alice@people.example"]\n'
            '[account."alice@example.org".app_password."phone"]\n'
            f'password = "{hash_app_password(self.app_password)}"\n'
            'scopes = ["smtp"]\n'
            "expires = 2027-01-01\n"
            '[account."nologin@example.org"]\n'
        )
        self.open()

    def write(self, text: str) -> None:
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(text)

    def open(self, **wanted: Any) -> None:
        self.accounts = FileDirectory(
            path=self.path,
            clock=self.clock,
            run_in_thread=maybeDeferred,
            check_password=self.check_password,
            today=lambda: datetime.date(2026, 12, 31),
            **wanted,
        )
        self.successResultOf(Deferred.fromCoroutine(self.accounts.start()))

    def check_password(self, password: str, hash: str | None) -> Deferred[bool]:
        self.compared.append(hash)
        is_right = hash is not None and password == PASSWORD
        done: Deferred[bool] = Deferred()
        if self.held is None:
            done.callback(is_right)
        else:
            done.addCallback(lambda _: is_right)
            self.held.append(done)
        return done

    def authenticator(self, *checkers: Any, **wanted: Any) -> Authenticator:
        settings: dict[str, Any] = {
            "accounts": self.accounts,
            "checkers": checkers,
            "lockout": self.lockout,
            "clock": self.clock,
            "login_domain": "example.org",
            "hostname": "mail.example.org",
            "secret": secret_key,
        }
        return Authenticator(**settings | wanted)

    def plain(self, name: str, password: str, authorization: str = "", **wanted: Any) -> Deferred[Any]:
        login = self.authenticator(**wanted).begin("PLAIN", peer(), BINDING)
        return Deferred.fromCoroutine(login.respond("\0".join((authorization, name, password)).encode()))

    def now(self, answer: Deferred[Any]) -> Any:
        return self.successResultOf(answer)


class Guesses(Case):
    def test_guesses_that_come_at_once_are_bounded_by_the_lockout_like_those_that_come_in_turn(self) -> None:
        self.lockout = Counting(5)
        self.held = []
        answers = [self.plain("alice", f"guess {number}") for number in range(20)] + [self.plain("alice", PASSWORD)]
        for held in self.held:
            held.callback(None)
        self.assertEqual(self.now(answers[-1]).denial, Denial.SLOW_DOWN)
        self.assertEqual(self.lockout.successes, [])

    def test_once_the_lockout_has_shut_the_answer_to_a_right_guess_is_that_to_a_wrong_one(self) -> None:
        self.lockout = Counting(5)
        self.held = []
        words = [f"guess {number}" for number in range(20)]
        answers = [self.plain("alice", word) for word in [*words, PASSWORD]]
        for held in self.held:
            held.callback(None)
        denials = [self.now(answer).denial for answer in answers]
        self.assertEqual(denials, [Denial.CREDENTIALS] * 5 + [Denial.SLOW_DOWN] * 16)
        self.assertEqual(len(self.lockout.failures), 5)

    def test_an_exchange_that_was_begun_before_the_lockout_shut_does_not_go_on_after_it(self) -> None:
        accounts = set()

        class Shut(Counting):
            async def standing(self, peer_address: str, account: str) -> Standing:
                accounts.add(account)
                return await super().standing(peer_address, account) if account else FREE  # the account alone is locked out

        self.lockout = Shut(1)
        login = self.authenticator().begin("SCRAM-SHA-256", peer(), BINDING)
        step = self.now(Deferred.fromCoroutine(login.respond(b"n,,n=alice,r=abc")))
        challenge = step.data.decode()
        without_proof = f"c=biws,{challenge.split(',')[0]}"
        message = f"n=alice,r=abc,{challenge},{without_proof}".encode()
        salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"s" * 16, 4096)
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        self.now(self.plain("alice", "wrong"))
        answer = self.now(Deferred.fromCoroutine(login.respond(f"{without_proof},p={proof}".encode())))
        self.assertEqual(answer.denial, Denial.SLOW_DOWN)
        self.assertIn("alice@example.org", accounts)

    def test_each_wrong_password_is_told_to_the_lockout_with_what_tells_it_from_another(self) -> None:
        for password in ("one", "two", "two"):
            self.now(self.plain("Alice@EXAMPLE.org", password))
        self.assertEqual([evidence for _, _, evidence in self.lockout.failures], [b"one", b"two", b"two"])
        self.assertEqual({account for _, account, _ in self.lockout.failures}, {"alice@example.org"})

    def test_one_account_has_one_name_for_the_lockout_however_it_is_written(self) -> None:
        for name in ("alice", "ALICE", " alice ", "alice@example.org", "Alice@Example.ORG", '"alice"@example.org'):
            self.now(self.plain(name, "wrong"))
        self.assertEqual({account for _, account, _ in self.lockout.failures}, {"alice@example.org"})

    def test_where_the_lockout_cannot_be_asked_or_told_nobody_can_tell(self) -> None:
        for method, password in (("standing", PASSWORD), ("failed", "wrong"), ("succeeded", PASSWORD)):
            self.lockout = Broken(**{method: True})
            answer = self.now(self.plain("alice", password))
            self.flushLoggedErrors(OSError)
            self.assertEqual((method, answer.denial), (method, Denial.UNAVAILABLE))


class Enumeration(Case):
    def test_whoever_is_unknown_hears_the_same_after_as_many_comparisons(self) -> None:
        names = ("alice", "nobody", "nologin", "alice@elsewhere.example", "no address @@", "a" * 900)
        answers = set()
        for name in names:
            self.compared.clear()
            answer = self.now(self.plain(name, "wrong"))
            answers.add((answer.denial, len(self.compared)))
        self.assertEqual(answers, {(Denial.CREDENTIALS, 1)})

    def scram_challenge(self, name: str, authenticator: Authenticator) -> dict[str, str]:
        login = authenticator.begin("SCRAM-SHA-256", peer(), BINDING)
        step = self.now(Deferred.fromCoroutine(login.respond(f"n,,n={name},r=abc".encode())))
        self.assertIsInstance(step, Challenge)
        return dict(part.split("=", 1) for part in step.data.decode().split(","))

    def test_scram_answers_unknown_names_with_a_salt_that_stays_the_same_over_restarts(self) -> None:
        salts = [self.scram_challenge("nobody", self.authenticator())["s"] for _ in range(2)]
        self.assertEqual(salts[0], salts[1])
        self.assertEqual(len(base64.b64decode(salts[0])), 16)
        self.assertNotEqual(salts[0], self.scram_challenge("nobody2", self.authenticator())["s"])

    def test_false_keys_have_the_form_that_most_real_ones_have(self) -> None:
        for iterations, salt in ((4096, b"s" * 16), (6000, b"salt of 20 octets...")):
            scram = encode_scram_keys(derive_scram_keys(PASSWORD, salt=salt, iterations=iterations))
            names = [f'[account."u{number}@example.org"]\n{{}}scram = "{scram}"\n' for number in range(3)]
            own = encode_scram_keys(derive_scram_keys(PASSWORD, salt=b"s" * 16, iterations=10_000))
            other = f'[account."alice@example.org"]\npassword = "{HASH}"\nscram = "{own}"\n'
            self.write(other + "".join(names).format(*[f'password = "{HASH}"\n'] * 3))
            self.open()
            found = [self.scram_challenge(name, self.authenticator()) for name in ("u1", "nobody")]
            self.assertEqual({(one["i"], len(base64.b64decode(one["s"]))) for one in found}, {(str(iterations), len(salt))})

    def test_a_false_salt_is_the_same_for_all_ways_to_write_a_name_as_a_real_one_is(self) -> None:
        for name in ("alice", "nobody", "nologin"):
            ways = (name, name.upper(), f"{name}@example.org", f"{name}@EXAMPLE.org")
            self.assertEqual(len({self.scram_challenge(way, self.authenticator())["s"] for way in ways}), 1)

    def test_no_proof_goes_with_false_keys(self) -> None:
        authenticator = self.authenticator()
        login = authenticator.begin("SCRAM-SHA-256", peer(), BINDING)
        step = self.now(Deferred.fromCoroutine(login.respond(b"n,,n=nobody,r=abc")))
        challenge = dict(part.split("=", 1) for part in step.data.decode().split(","))
        without_proof = f"c=biws,r={challenge['r']}"
        message = f"n=nobody,r=abc,{step.data.decode()},{without_proof}".encode()
        stored = hmac.digest(SECRET, b"key nobody@example.org", "sha256")  # even who knows the server's secret
        proof = base64.b64encode(hmac.digest(stored, message, "sha256")).decode()
        answer = self.now(Deferred.fromCoroutine(login.respond(f"{without_proof},p={proof}".encode())))
        self.assertEqual(answer.denial, Denial.CREDENTIALS)


class Octets(Case):
    @settings(max_examples=300)
    @given(st.sampled_from(sorted(MECHANISMS)), st.lists(any_octets(max_size=60) | st.none(), min_size=1, max_size=4))
    def test_octets_that_are_no_credentials_end_in_no_login_and_no_error(self, mechanism: str, responses: list[Any]) -> None:
        authenticator = self.authenticator()
        client = peer(client_certificate="cd" * 32)
        if mechanism not in authenticator.mechanisms(client):
            self.assertRaises(KeyError, authenticator.begin, mechanism, client, BINDING)
            return
        login = authenticator.begin(mechanism, client, BINDING)
        for number, response in enumerate(responses):
            data = b"" if number and response is None else response
            step = self.now(Deferred.fromCoroutine(login.respond(data)))
            if not isinstance(step, Challenge):
                self.assertIsInstance(step, Denied)
                self.assertIn(step.denial, (Denial.CREDENTIALS, Denial.MALFORMED))
                return

    @settings(max_examples=300)
    @given(st.text(min_size=1, max_size=40).filter(lambda text: "\0" not in text))
    def test_no_name_is_an_error(self, name: str) -> None:
        try:
            name.encode()
        except UnicodeEncodeError:
            return
        self.assertEqual(self.now(self.plain(name, "wrong")).denial, Denial.CREDENTIALS)


class Authorization(Case):
    def test_whoever_knows_his_password_acts_for_himself_alone(self) -> None:
        for own in ("", "alice", "ALICE@example.org"):
            self.assertEqual(self.now(self.plain("alice", PASSWORD, own)), LoggedIn("alice@example.org", "PLAIN"))
        for other in ("nologin", "alice@elsewhere.example", "root", "@", "*"):
            self.lockout = Counting()
            answer = self.now(self.plain("alice", PASSWORD, other))
            self.assertEqual((other, answer.denial), (other, Denial.CREDENTIALS))
            self.assertEqual(self.lockout.successes, [])


class AppPasswords(Case):
    def login(self, service: str) -> Any:
        login = self.authenticator().begin("PLAIN", Peer("192.0.2.7", 1, service, tls=peer().tls), BINDING)
        return self.now(Deferred.fromCoroutine(login.respond(f"\0alice\0{self.app_password}".encode())))

    def test_an_app_password_is_good_for_its_services_alone(self) -> None:
        self.assertEqual(self.login("submission"), LoggedIn("alice@example.org", "PLAIN", "app password phone"))
        for service in ("imap", "pop3", "lmtp", "web", ""):
            self.assertEqual((service, self.login(service).denial), (service, Denial.CREDENTIALS))

    def test_an_app_password_is_nobody_elses(self) -> None:
        self.assertEqual(self.now(self.plain("nologin", self.app_password)).denial, Denial.CREDENTIALS)

    def test_an_app_password_of_yesterday_is_no_good_today(self) -> None:
        self.accounts._today = lambda: datetime.date(2027, 1, 1)
        self.assertEqual(self.login("submission").denial, Denial.CREDENTIALS)

    def test_a_use_that_cannot_be_noted_keeps_nobody_out(self) -> None:
        class State:
            async def get(self, key: str) -> bytes | None:
                raise OSError("the disk is gone")

        self.open(used=AppPasswordUses(cast(IStateStore, State())).note)
        self.assertIsInstance(self.login("submission"), LoggedIn)
        self.flushLoggedErrors(OSError)


class Certificates(Case):
    def external(self, **facts: Any) -> Any:
        login = self.authenticator().begin("EXTERNAL", peer(**facts), BINDING)
        return self.now(Deferred.fromCoroutine(login.respond(b"")))

    def test_a_fingerprint_is_enough_while_the_certificate_is_good(self) -> None:
        self.assertEqual(self.external(client_certificate=FINGERPRINT).account, "alice@example.org")
        for fault in ("self-signed", "unknown authority"):
            self.assertIsInstance(self.external(client_certificate=FINGERPRINT, client_fault=fault), LoggedIn)
        for fault in ("expired", "revoked", "not yet valid"):
            answer = self.external(client_certificate=FINGERPRINT, client_fault=fault)
            self.assertEqual((fault, answer.denial), (fault, Denial.CREDENTIALS))

    def test_addresses_in_a_certificate_count_only_where_an_authority_vouches_for_them(self) -> None:
        emails = ("x@y.example", "Alice@people.example")
        good = self.external(client_certificate="cd" * 32, client_emails=emails, client_verified=True)
        self.assertEqual(good.account, "alice@example.org")
        bad = self.external(client_certificate="cd" * 32, client_emails=emails, client_fault="self-signed")
        self.assertEqual(bad.denial, Denial.CREDENTIALS)

    def test_an_address_in_a_certificate_that_looks_like_a_fingerprint_is_none(self) -> None:
        answer = self.external(client_certificate="cd" * 32, client_emails=(FINGERPRINT,), client_verified=True)
        self.assertEqual(answer.denial, Denial.CREDENTIALS)

    def test_external_is_not_there_for_whoever_shows_no_certificate(self) -> None:
        self.assertNotIn("EXTERNAL", self.authenticator().mechanisms(peer()))


class InTheClear(Case):
    def test_nothing_is_offered_in_the_clear_but_to_this_host_where_that_is_allowed(self) -> None:
        here, there = (Peer(address, 1, "submission") for address in ("127.0.0.1", "192.0.2.7"))
        for authenticator in (self.authenticator(), self.authenticator(loopback_in_clear=True)):
            self.assertEqual(authenticator.mechanisms(there), ())
            self.assertRaises(KeyError, authenticator.begin, "PLAIN", there, ChannelBindings())
        self.assertEqual(self.authenticator().mechanisms(here), ())
        offered = self.authenticator(loopback_in_clear=True).mechanisms(here)
        self.assertIn("PLAIN", offered)
        self.assertNotIn("SCRAM-SHA-256-PLUS", offered)
        for address in ("", "local", "::ffff:192.0.2.7", "127.0.0.1.evil.example", "128.0.0.1", "::2"):
            client = Peer(address, 1, "submission")
            self.assertEqual(self.authenticator(loopback_in_clear=True).mechanisms(client), ())


class HandsInTheFile(Case):
    def test_an_account_whose_password_somebody_has_removed_logs_in_with_none_of_what_was_derived_from_it(self) -> None:
        with open(self.path, encoding="utf-8") as file:
            lines = file.readlines()
        self.write("".join([line for line in lines if not line.startswith("password") or HASH not in line]))
        self.open()
        self.assertIsNone(self.now(Deferred.fromCoroutine(self.accounts.scram_keys("alice@example.org"))))
        self.assertIsNone(self.now(Deferred.fromCoroutine(self.accounts.secret("alice@example.org"))))
        self.assertEqual(self.now(self.plain("alice", PASSWORD)).denial, Denial.CREDENTIALS)

    def test_a_certificate_that_would_stand_for_two_accounts_is_a_fault_with_its_line(self) -> None:
        text = "".join(
            f'[account."{name}@example.org"]\ncertificates = ["{mark}"]\n'
            for name, mark in (("alice", "a@people.example"), ("bob", "A@People.example"))
        )
        error = self.assertRaises(ConfigurationError, parse_accounts, text, "accounts.toml")
        self.assertEqual([(fault.line, fault.key) for fault in error.faults], [(4, "account.bob@example.org.certificates.0")])

    def test_characters_that_other_tables_take_for_the_end_of_a_line_move_no_edit_to_another_one(self) -> None:
        comment = "# a\u2028b\u0085c\u2029d\n"
        with open(self.path, encoding="utf-8") as file:
            before = file.read()
        self.write(comment + before)
        AccountsFile(self.path).set_password("nologin@example.org", Password(HASH))
        with open(self.path, encoding="utf-8") as file:
            self.assertEqual(file.read(), f'{comment}{before}password = "{HASH}"\n')


class Comparing(SynchronousTestCase):
    """Costs, counted and not measured."""

    def setUp(self) -> None:
        self.compared: list[str] = []
        self.patch(password_checks, "verify_password", self.verify)
        self.clock = Clock()

    def verify(self, password: str, hash: str) -> bool:
        self.compared.append(hash)
        return password == PASSWORD and hash != password_checks.nobodys_hash()

    def matches(self, password: str, hash: str | None) -> bool:
        checks = password_checks.PasswordChecks(run=maybeDeferred, clock=self.clock, remember_seconds=0)
        found: bool = self.successResultOf(Deferred.fromCoroutine(checks.matches(password, hash)))
        return found

    def test_a_wrong_password_costs_a_whole_comparison_also_where_the_accounts_own_hash_is_a_quick_one(self) -> None:
        quick = "{SSHA}rkpylcVUXjyYnPYjaTj+2uU1kW3NuZeS"
        for hash in (HASH, quick, None):
            self.assertFalse(self.matches("wrong", hash))
        self.assertEqual(self.compared, [HASH, quick, password_checks.nobodys_hash(), password_checks.nobodys_hash()])

    def test_the_hash_of_nobody_takes_the_work_that_a_new_accounts_hash_takes(self) -> None:
        self.assertFalse(needs_update(password_checks.nobodys_hash()))  # the parameters are the same
        self.assertTrue(needs_update("{SSHA}rkpylcVUXjyYnPYjaTj+2uU1kW3NuZeS"))


class Attempts(Case):
    def attempt(self) -> tuple[Any, Deferred[Any]]:
        """A wrong password whose answer has a pause of five seconds; the pause has begun."""

        class Slow(Counting):
            async def failed(self, peer_address: str, account: str, evidence: bytes) -> float:
                return await super().failed(peer_address, account, evidence) + 5.0

        self.lockout, self.held = Slow(), []
        login = self.authenticator().begin("PLAIN", peer(), BINDING)
        return login, Deferred.fromCoroutine(login.respond(b"\0alice\0wrong"))

    def test_a_failure_is_told_after_its_pause_and_without_one_where_nobody_waits_any_more(self) -> None:
        for is_cancelled in (False, True):
            login, answer = self.attempt()
            if is_cancelled:
                login.cancel()
            self.held[0].callback(None)
            if not is_cancelled:
                self.assertNoResult(answer)
                self.clock.advance(5)
            self.assertEqual(self.now(answer).denial, Denial.CREDENTIALS)
            self.assertEqual(len(self.lockout.failures), 1)

    def test_a_response_after_the_end_is_the_callers_fault_and_not_an_answer(self) -> None:
        login = self.authenticator().begin("PLAIN", peer(), BINDING)
        respond = b"\0alice\0" + PASSWORD.encode()
        self.assertIsInstance(self.now(Deferred.fromCoroutine(login.respond(respond))), LoggedIn)
        self.failureResultOf(Deferred.fromCoroutine(login.respond(respond)), LocalSASLError)

    def test_clients_of_this_host_are_those_of_its_sockets_and_of_loopback(self) -> None:
        for address, is_here in (("unix", True), ("127.0.0.9", True), ("::1", True), ("192.0.2.7", False), ("", False)):
            self.assertEqual((address, is_loopback(address)), (address, is_here))

    def test_why_a_guarded_network_says_no_is_for_the_log_and_the_same_words_are_said_once(self) -> None:
        class Guarded(Counting):
            async def standing(self, peer_address: str, account: str) -> Standing:
                return Standing("guessers are here", lets_in=account.startswith("alice"), is_guarded=True, answer_seconds=5.0)

        self.lockout = Guarded()
        whys = []
        for name, password in (("alice", "wrong"), ("bob", PASSWORD)):
            answer = self.now(self.plain(name, password))
            self.assertEqual(answer.denial, Denial.SLOW_DOWN)
            whys.append(answer.why)
        self.assertTrue(all(why.startswith("guessers are here; ") for why in whys), whys)


class OtherCheckers(Case):
    def test_a_checker_is_never_asked_about_an_empty_name(self) -> None:
        path = f"{self.directory_path}/passwords"
        with open(path, "w") as file:
            file.write(f":{PASSWORD}\n@example.org:{PASSWORD}\nbob:{PASSWORD}\n")
        checker = make_checker(f"file:{path}", "example.org")
        for name in ("", "@example.org", " ", "@", "not an address@@"):
            if name:
                answer = self.now(self.plain(name, PASSWORD, accounts=object(), checkers=[checker]))
                self.assertEqual((name, getattr(answer, "denial", answer)), (name, Denial.CREDENTIALS))
        answer = self.now(self.plain("bob", PASSWORD, accounts=object(), checkers=[checker]))
        self.assertEqual(answer.account, "bob@example.org")

    def test_a_bare_name_is_the_login_domains_alone(self) -> None:
        checker = make_checker(f"memory:bob:{'secret'}", "example.org")
        for name, is_in in (("bob", True), ("bob@example.org", True), ("bob@elsewhere.example", False)):
            answer = self.now(self.plain(name, "secret", checkers=[checker]))
            self.assertEqual((name, isinstance(answer, LoggedIn)), (name, is_in))

    def test_one_that_does_not_check_passwords_or_that_nobody_knows_is_refused_by_name(self) -> None:
        for description in ("anonymous", "nonsense:x", "file:"):
            with self.assertRaises(CheckerError) as raised:
                make_checker(description, "example.org")
            self.assertIn(repr(description), str(raised.exception))

    def test_one_that_cannot_tell_keeps_nobody_out_whom_another_knows(self) -> None:
        asked: list[str] = []

        class Down:
            credentialInterfaces = self.accounts.credentialInterfaces

            def requestAvatarId(self, credentials: Any) -> Any:
                asked.append("asked")
                raise OSError("it has died")

        checker = make_checker("memory:bob:secret", "example.org")
        for checkers in ([Down(), checker], [checker, Down()]):
            self.assertIsInstance(self.now(self.plain("bob", "secret", accounts=object(), checkers=checkers)), LoggedIn)
            for name, password in (("bob", "wrong"), ("eve", "secret")):  # it might know them
                answer = self.now(self.plain(name, password, accounts=object(), checkers=checkers))
                self.assertEqual(answer.denial, Denial.UNAVAILABLE)
        self.assertEqual(len(asked), 5)

    def test_the_checker_of_the_hosts_users_knows_their_passwords(self) -> None:
        if importlib.util.find_spec("crypt") is None:
            raise SkipTest("Twisted's checker needs the module crypt, which Python 3.13 has no more")
        crypted = hashes.sha512_crypt.using(rounds=1000).hash("sécret")
        bob = pwd.struct_passwd(("bob", crypted, 1000, 1000, "", "/home/bob", "/bin/sh"))
        self.patch(pwd, "getpwnam", {"bob": bob}.__getitem__)
        checker = make_checker("unix", "example.org")
        for name, password, is_in in (("bob", "sécret", True), ("bob", "secret", False), ("eve", "sécret", False)):
            answer = self.now(self.plain(name, password, checkers=[checker]))
            self.assertEqual((name, password, isinstance(answer, LoggedIn)), (name, password, is_in))


class Secrets(Case):
    def test_no_password_stands_in_the_log_an_answer_or_a_representation(self) -> None:
        events: list[str] = []

        def observe(event: Any) -> None:
            events.append(repr(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        word = "s3cr3t-w0rd"

        class Failing:
            credentialInterfaces = self.accounts.credentialInterfaces

            def requestAvatarId(self, credentials: Any) -> Any:
                raise RuntimeError("no connection")

        authenticator = self.authenticator(Failing())
        for message in (f"\0alice\0{word}", f"\0{word}@example.org\0{word}", f"bob\0alice\0{PASSWORD}"):
            login = authenticator.begin("PLAIN", peer(), BINDING)
            answer = self.now(Deferred.fromCoroutine(login.respond(message.encode())))
            if f"{word}@" not in message:
                self.assertNotIn(word, repr((answer, login, authenticator, self.accounts)))
        self.assertNotIn(hashlib.sha256(word.encode()).hexdigest(), "".join(events))
        self.assertNotIn(PASSWORD, "".join(events))
        self.flushLoggedErrors(RuntimeError)
