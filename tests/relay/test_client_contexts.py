"""Which certificates `verified` believes: joined in memory, with an authority of our own."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.trial.unittest import SynchronousTestCase

from mailserver.relay.client_contexts import ClientContexts, Securing
from mailserver.relay.security import Demand, TLSMode

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def made(name, issuer, key, signer, *extensions):
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer, hashes.SHA256())


class Names(SynchronousTestCase):
    def test_a_host_is_told_the_name_that_is_meant_and_never_a_number(self):
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        for name, told in (("mx.example.org", b"mx.example.org"), ("192.0.2.1", None), ("[2001:db8::1]", None), ("2001:db8::1", None), ("", None)):
            self.assertEqual(Securing(context, Demand(TLSMode.REQUIRED), name).clientConnectionForTLS(None).get_servername(), told, name)


class Verified(SynchronousTestCase):
    def setUp(self):
        self.authority_key = ec.generate_private_key(ec.SECP256R1())
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self.authority = made("Authority", "Authority", self.authority_key, self.authority_key, constraints)

    def shakes_hands(self, name, *extensions, signer=None):
        """Does a client that wants `name` accept a certificate with these extensions?"""
        key = ec.generate_private_key(ec.SECP256R1())
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(made("mx.example.org", "Authority", key, signer or self.authority_key, *extensions))
        context.use_privatekey(key)
        root = trustRootFromCertificates([Certificate.loadPEM(self.authority.public_bytes(Encoding.PEM))])
        creator = ClientContexts(root).securing(Demand(TLSMode.VERIFIED, name), name)
        client, server = creator.clientConnectionForTLS(Protocol()), SSL.Connection(context, None)
        client.set_connect_state()
        server.set_accept_state()
        for _ in range(6):
            for one, other in ((client, server), (server, client)):
                try:
                    one.do_handshake()
                except SSL.WantReadError:
                    pass
                except SSL.Error:
                    return False
                try:
                    other.bio_write(one.bio_read(65536))
                except SSL.WantReadError:
                    pass
        return True

    def test_the_hosts_own_certificate_is_accepted(self):
        names = x509.SubjectAlternativeName([x509.DNSName("mx.example.org")])
        self.assertTrue(self.shakes_hands("mx.example.org", names))

    def test_a_host_that_is_meant_by_its_number_has_it_in_its_certificate(self):
        numbers = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("192.0.2.1"))])
        self.assertTrue(self.shakes_hands("192.0.2.1", numbers))
        self.assertFalse(self.shakes_hands("192.0.2.2", numbers))
        names = x509.SubjectAlternativeName([x509.DNSName("192.0.2.1")])
        self.assertFalse(self.shakes_hands("192.0.2.1", names), "a name is no number")

    def test_another_hosts_certificate_is_not(self):
        names = x509.SubjectAlternativeName([x509.DNSName("other.example.org")])
        self.assertFalse(self.shakes_hands("mx.example.org", names))

    def test_a_certificate_without_alternative_names_is_not(self):
        self.assertFalse(self.shakes_hands("mx.example.org"))

    def test_a_certificate_of_a_stranger_is_not(self):
        names = x509.SubjectAlternativeName([x509.DNSName("mx.example.org")])
        self.assertFalse(self.shakes_hands("mx.example.org", names, signer=ec.generate_private_key(ec.SECP256R1())))


class Protocol:
    """What Twisted's creator looks at."""

    wrappedProtocol = None

    class factory:
        wrappedFactory = None

    def failVerification(self, failure):
        raise AssertionError("the check is ours")
