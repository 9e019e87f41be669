"""What is doubtful about files that can be used, and when the server says so."""

from __future__ import annotations

import datetime
import os

from OpenSSL import SSL
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from mailserver.tls import Certificates, ClientCertificates, Sources
from mailserver.tls import certificates as certificates_module
from mailserver.tls.identity import read_authorities, read_identity, read_revocations
from mailserver.tls.soundness import authority_doubts, identity_doubts, revocation_doubts
from tests.tls.authority import DAY, Authority, Leaf
from tests.tls.folder import FolderCase

AUTHORITY = Authority()
OTHER = Authority("Other CA")
NOW = datetime.datetime.now(datetime.UTC)


class SoundnessCase(FolderCase):
    def doubts(self, leaf: Leaf, name: str = "", *more: bytes, after: datetime.timedelta = 0 * DAY) -> list[str]:
        """Without the folder."""
        pair = leaf.write(self.directory)
        with open(pair.certificate, "ab") as file:
            file.write(b"".join(more))
        return self.short(identity_doubts(read_identity(pair), name=name, now=NOW + after))

    def short(self, sentences: object) -> list[str]:
        return [one.replace(self.directory + "/", "") for one in sentences]  # type: ignore[attr-defined]


class Identities(SoundnessCase):
    LEAF = AUTHORITY.leaf("mx.example.org", "*.example.net", days=(-1, 90))

    def test_nothing_is_wrong_with_a_good_one(self) -> None:
        for name in ("", "mx.example.org", "MX.Example.org", "any.example.net", "*.example.net"):
            self.assertEqual(self.doubts(self.LEAF, name, AUTHORITY.pem), [], name)

    def test_a_wildcard_is_for_one_label_and_for_nothing_less(self) -> None:
        for name in ("example.net", "a.b.example.net", "*.example.org", "*.b.example.net"):
            [doubt] = self.doubts(self.LEAF, name)
            self.assertEqual(
                doubt, f"server.pem: the certificate is not for {name}, but for mx.example.org, *.example.net"
            )

    def test_of_many_names_some_are_told(self) -> None:
        many = AUTHORITY.leaf(*[f"{n}.example" for n in range(100)])
        [doubt] = self.doubts(many, "mx.example.org")
        self.assertTrue(doubt.endswith(", but for 0.example, 1.example, 2.example, 3.example, 4.example, …"), doubt)

    def test_of_five_names_none_is_left_out(self) -> None:
        [doubt] = self.doubts(AUTHORITY.leaf(*[f"{n}.example" for n in range(5)]), "mx.example.org")
        self.assertTrue(doubt.endswith(", but for 0.example, 1.example, 2.example, 3.example, 4.example"), doubt)

    def test_the_end_is_told_two_weeks_before(self) -> None:
        self.assertEqual(self.doubts(self.LEAF, after=75 * DAY), [])
        self.assertIn("server.pem: the certificate expires soon, ", self.doubts(self.LEAF, after=77 * DAY)[0])
        self.assertIn("server.pem: the certificate has expired, ", self.doubts(self.LEAF, after=91 * DAY)[0])

    def test_one_of_tomorrow_is_told(self) -> None:
        [doubt] = self.doubts(self.LEAF, after=-2 * DAY)
        self.assertIn("server.pem: the certificate is not valid before ", doubt)

    def test_one_for_clients_is_told(self) -> None:
        [doubt] = self.doubts(AUTHORITY.leaf("mx.example.org", client=True), "mx.example.org")
        self.assertEqual(doubt, "server.pem: the certificate is not for servers (its extended key usage)")

    def test_one_that_says_nothing_of_its_use_is_for_servers_too(self) -> None:
        self.assertEqual(self.doubts(AUTHORITY.leaf("mx.example.org", client=None), "mx.example.org"), [])

    def test_a_chain_in_the_wrong_order_is_told(self) -> None:
        self.assertEqual(
            self.doubts(self.LEAF, "", OTHER.pem, AUTHORITY.pem),
            ["server.pem: after the certificate of CN=mx.example.org should come that of CN=Test CA, its issuer"],
        )

    def test_a_key_that_everybody_can_read_is_told(self) -> None:
        identity = read_identity(self.LEAF.write(self.directory))
        os.chmod(identity.pair.key, 0o651)
        self.assertEqual(self.short(identity_doubts(identity, now=NOW)), [])
        os.chmod(identity.pair.key, 0o644)
        self.assertEqual(
            self.short(identity_doubts(identity, now=NOW)), ["server.key: every user of the host can read the key"]
        )


class Clients(SoundnessCase):
    def listed(self, lists: bytes, *authorities: Authority, after: datetime.timedelta = 0 * DAY) -> list[str]:
        found = read_revocations(self.write("crl.pem", lists))
        known = [one.certificate for one in authorities]
        return self.short(revocation_doubts("crl.pem", found, known, NOW + after))

    def test_an_authority_that_ends_is_told(self) -> None:
        found = read_authorities(self.write("ca.pem", AUTHORITY.pem))
        self.assertEqual(list(authority_doubts("ca.pem", found, NOW)), [])
        [doubt] = authority_doubts("ca.pem", found, NOW + 500 * DAY)
        self.assertIn("ca.pem: the authority CN=Test CA has expired, ", doubt)

    def test_nothing_is_wrong_with_a_list_of_each_authority(self) -> None:
        self.assertEqual(self.listed(AUTHORITY.revocations() + OTHER.revocations(), AUTHORITY, OTHER), [])

    def test_a_list_of_yesterday_is_told(self) -> None:
        [doubt] = self.listed(AUTHORITY.revocations(), AUTHORITY, after=31 * DAY)
        self.assertIn("crl.pem: the list of CN=Test CA has expired, ", doubt)

    def test_an_authority_without_a_list_is_told(self) -> None:
        [doubt] = self.listed(AUTHORITY.revocations(), AUTHORITY, OTHER)
        self.assertIn("crl.pem: there is no list of the authority CN=Other CA; ", doubt)

    def test_a_list_that_somebody_else_has_signed_is_told(self) -> None:
        self.assertEqual(
            self.listed(Authority().revocations(), AUTHORITY),
            ["crl.pem: the list of CN=Test CA is signed by none of the authorities"],
        )


class Telling(SoundnessCase):
    """By the server, in its log."""

    def setUp(self) -> None:
        super().setUp()
        self.said: list[str] = []
        globalLogPublisher.addObserver(self.hear)
        self.addCleanup(globalLogPublisher.removeObserver, self.hear)
        self.clock = Clock()

    def hear(self, event: dict[str, object]) -> None:
        if event.get("log_namespace") == "mailserver.tls.certificates.Certificates":
            text = str(event.get("doubt") or event.get("fault") or event.get("log_format"))
            if event["log_level"] in (LogLevel.warn, LogLevel.error):
                self.said += self.short([text])

    def started(self, leaf: Leaf) -> Certificates:
        sources = Sources(leaf.write(self.directory))
        certificates = Certificates(sources=lambda: sources, clock=self.clock, run_in_thread=maybeDeferred)
        self.run_now(certificates.start())
        self.addCleanup(lambda: self.run_now(certificates.stop()))
        return certificates

    def run_now(self, awaitable: object) -> None:
        self.successResultOf(Deferred.fromCoroutine(awaitable))  # type: ignore[arg-type]

    def test_an_expired_certificate_is_used_and_told_at_the_start_and_once_a_day(self) -> None:
        self.started(AUTHORITY.leaf("mx.example.org", days=(-30, -1)))
        self.assertEqual(len(self.said), 1)
        self.assertIn("server.pem: the certificate has expired, ", self.said[0])
        self.clock.pump([5.0] * 100)
        self.assertEqual(len(self.said), 1)
        self.clock.pump([86_400.0, 5.0, 5.0])
        self.assertEqual(len(self.said), 2)

    def test_a_good_certificate_is_not_talked_about(self) -> None:
        self.started(AUTHORITY.leaf("mx.example.org"))
        self.clock.pump([5.0, 86_400.0, 5.0])
        self.assertEqual(self.said, [])

    def test_each_faulty_state_is_told_once_and_the_next_one_again(self) -> None:
        self.started(AUTHORITY.leaf("mx.example.org"))
        os.unlink(os.path.join(self.directory, "server.key"))
        self.clock.pump([5.0] * 10)
        self.assertEqual(self.said, ["server.key: cannot be read: No such file or directory"])
        self.write("server.key", b"nonsense")
        self.clock.pump([5.0] * 10)
        self.assertEqual(self.said[1:], ["server.key: there is no private key in PEM form that could be read"])

    def test_a_key_that_openssl_refuses_is_told_once_and_what_was_read_before_stays(self) -> None:
        certificates = self.started(AUTHORITY.leaf("mx.example.org"))
        before = certificates.connection(ClientCertificates.IGNORE).get_context()

        def refused(*_: object) -> None:
            raise SSL.Error([("", "", "ee key too small")])

        patched = self.patch(certificates_module, "ServerContexts", refused)
        AUTHORITY.leaf("mx.example.org").write(self.directory)
        self.clock.pump([5.0] * 10)
        self.assertEqual(len(self.said), 1)
        self.assertIn("ee key too small", self.said[0])
        self.assertIs(certificates.connection(ClientCertificates.IGNORE).get_context(), before)
        patched.restore()
        AUTHORITY.leaf("mx.example.org").write(self.directory)
        self.clock.pump([5.0] * 3)
        self.assertIsNot(certificates.connection(ClientCertificates.IGNORE).get_context(), before)

    def test_files_that_were_only_touched_change_nothing(self) -> None:
        certificates = self.started(AUTHORITY.leaf("mx.example.org"))
        before = certificates.connection(ClientCertificates.IGNORE).get_context()
        for name in ("server.pem", "server.key"):
            os.utime(os.path.join(self.directory, name), (1, 1))
        self.clock.pump([5.0] * 3)
        self.assertIs(certificates.connection(ClientCertificates.IGNORE).get_context(), before)
        AUTHORITY.leaf("mx.example.org").write(self.directory)
        self.clock.pump([5.0] * 3)
        self.assertIsNot(certificates.connection(ClientCertificates.IGNORE).get_context(), before)
