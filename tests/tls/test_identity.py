"""Pairs of files: what is good, what is wrong with the others, and the pair that the server makes itself."""

from __future__ import annotations

import datetime
import os
import stat
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mailserver.tls import self_signed
from mailserver.tls.identity import IdentityError, Pair, read_authorities, read_identity, read_revocations
from mailserver.tls.self_signed import self_signed_pair
from tests.tls.authority import Authority
from tests.tls.folder import FolderCase

AUTHORITY = Authority()
LEAF = AUTHORITY.leaf("mx.example.org", "*.example.net")


class IdentityCase(FolderCase):
    def fault(self, certificate: bytes, key: bytes) -> str:
        pair = Pair(self.write("a.pem", certificate), self.write("a.key", key))
        return str(self.assertRaises(IdentityError, read_identity, pair)).removeprefix(self.directory + "/")


class Reading(IdentityCase):
    def test_a_pair_has_names_an_end_and_a_chain(self) -> None:
        pair = LEAF.write(self.directory)
        with open(pair.certificate, "ab") as file:
            file.write(AUTHORITY.pem)
        identity = read_identity(pair)
        self.assertEqual(identity.names, ("mx.example.org", "*.example.net"))
        self.assertEqual(identity.chain, (LEAF.certificate, AUTHORITY.certificate))
        self.assertEqual(identity.fingerprint, LEAF.fingerprint)
        self.assertGreater(identity.expires, datetime.datetime.now(datetime.UTC))

    def test_a_certificate_without_alternative_names_is_for_its_common_name(self) -> None:
        self.assertEqual(read_identity(AUTHORITY.leaf().write(self.directory)).names, ("nobody",))

    def test_each_fault_names_its_file(self) -> None:
        other = AUTHORITY.leaf("x.example")
        self.assertEqual(self.fault(b"", LEAF.key_pem), "a.pem: there is no certificate in PEM form")
        broken = LEAF.certificate_pem[:100] + b"\n-----END CERTIFICATE-----\n"
        self.assertEqual(self.fault(broken, LEAF.key_pem), "a.pem: a certificate in it cannot be read")
        self.assertIn("a.key: there is no private key", self.fault(LEAF.certificate_pem, b"nothing"))
        self.assertIn("a.key: the key does not belong", self.fault(LEAF.certificate_pem, other.key_pem))
        locked = LEAF.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        self.assertIn("a.key: the key is encrypted", self.fault(LEAF.certificate_pem, locked))

    def test_a_file_that_is_not_there_is_told(self) -> None:
        missing = os.path.join(self.directory, "missing.pem")
        error = self.assertRaises(IdentityError, read_authorities, missing)
        self.assertEqual(str(error), f"{missing}: cannot be read: No such file or directory")
        pair = Pair(self.write("a.pem", LEAF.certificate_pem), missing)
        error = self.assertRaises(IdentityError, read_identity, pair)
        self.assertEqual(str(error), f"{missing}: cannot be read: No such file or directory")

    def test_several_lists_of_revoked_certificates_in_one_file(self) -> None:
        other = Authority("Other")
        path = self.write("crl.pem", b"# ours\n" + AUTHORITY.revocations(LEAF) + other.revocations())
        self.assertEqual([one.issuer for one in read_revocations(path)], [AUTHORITY.name, other.name])
        for octets in (b"", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"):
            self.assertRaises(IdentityError, read_revocations, self.write("crl.pem", octets))


class SelfSigned(IdentityCase):
    def test_it_is_made_once_and_for_the_owner_alone(self) -> None:
        directory = os.path.join(self.directory, "tls")
        pair = self_signed_pair(directory, "mx.example.org", ["127.0.0.1"])
        identity = read_identity(pair)
        self.assertEqual(identity.names, ("mx.example.org", "localhost"))
        extensions = identity.leaf.extensions
        self.assertFalse(extensions.get_extension_for_class(x509.SubjectAlternativeName).critical, "it has a subject besides")
        self.assertTrue(extensions.get_extension_for_class(x509.BasicConstraints).critical, "RFC 5280 section 4.2.1.9")
        self.assertEqual(stat.S_IMODE(os.stat(pair.key).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(directory).st_mode), 0o700)
        self_signed_pair(directory, "mx.example.org", ["127.0.0.1"])
        self.assertEqual(read_identity(pair).fingerprint, identity.fingerprint)

    def test_another_name_an_approaching_end_or_a_broken_file_make_a_new_one(self) -> None:
        first = read_identity(self_signed_pair(self.directory, "a.example")).fingerprint
        second = read_identity(self_signed_pair(self.directory, "b.example")).fingerprint
        self.assertNotEqual(first, second)
        with mock.patch.object(self_signed, "RENEW_DAYS", 826):
            third = read_identity(self_signed_pair(self.directory, "b.example")).fingerprint
        self.assertNotEqual(second, third)
        self.write("self-signed.key", b"nonsense")
        self.assertNotEqual(third, read_identity(self_signed_pair(self.directory, "b.example")).fingerprint)

    def test_a_host_name_longer_than_a_common_name_may_be(self) -> None:
        name = ".".join(["label" * 4] * 5) + ".example"
        self.assertIn(name, read_identity(self_signed_pair(self.directory, name)).names)
