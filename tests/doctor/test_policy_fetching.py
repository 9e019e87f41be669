"""The host of an MTA-STS policy, over real TLS: its certificate and its answer are seen as they are."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.doctor.certificate_seen import CertificateFault
from mailserver.doctor.policy_fetching import fetched
from mailserver.doctor.policy_seen import HostFault, PolicyAnswer
from tests.trust.chains import Link, chain_of, self_signed

HOST = "mta-sts.example.org"
POLICY = b"version: STSv1\nmode: testing\nmx: mail.example.org\nmax_age: 604800\n"
GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b" % (len(POLICY), POLICY)


class PolicyFetching(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = time.time()
        self.root = chain_of(("ecdsa", "ecdsa"), (HOST,), now=self.now)[1]
        self.roots = self.written([self.root])

    def written(self, links: list[Link]) -> str:
        path = Path(self.mktemp())
        path.write_bytes(b"".join(one.pem for one in links))
        return str(path)

    def seen(self, said: bytes, link: Link | None = None, *, seconds: float = 10.0, stays: bool = False) -> PolicyAnswer:
        """What is seen of a host that says this, with this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if link is not None:
            context.load_cert_chain(self.written([link]))
        listener = socket.create_server(("127.0.0.1", 0))
        self.asked: list[bytes] = []
        over = threading.Event()

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                try:
                    with plain, context.wrap_socket(plain, server_side=True) if link is not None else plain as one:
                        self.asked.append(one.recv(4096))
                        one.sendall(said)
                        if stays:
                            over.wait(60)
                except OSError:
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            (answer,) = fetched(HOST, ["127.0.0.1"], port=listener.getsockname()[1], seconds=seconds, ca_file=self.roots)
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(30)
        return answer

    def test_a_policy_comes_with_its_certificate(self) -> None:
        link = chain_of(("ecdsa", "ecdsa"), (HOST,), now=self.now)[0]
        found = self.seen(GOOD, link)
        assert found.certificate is not None
        self.assertEqual((found.fault, found.status, found.media_type, found.body), (None, 200, "text/plain", POLICY))
        self.assertEqual((found.certificate.names, found.certificate.fault), ((HOST,), None))
        self.assertIn(b"GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: mta-sts.example.org\r\n", self.asked[0])

    def test_a_wrong_certificate_is_named_and_what_is_behind_it_seen_all_the_same(self) -> None:
        pair = ("ecdsa", "ecdsa")
        for link, fault in (
            (chain_of(pair, ("www.example.org",), now=self.now)[0], CertificateFault.NAME),
            (chain_of(pair, (HOST,), leaf_days=(-90, -1), now=self.now)[0], CertificateFault.EXPIRED),
            (chain_of(pair, (HOST,), leaf_days=(1, 90), now=self.now)[0], CertificateFault.EARLY),
            (self_signed("ecdsa", (HOST,), now=self.now), CertificateFault.UNTRUSTED),
        ):
            found = self.seen(GOOD, link)
            assert found.certificate is not None
            self.assertEqual((found.certificate.fault, found.body, found.fault), (fault, POLICY, None))
            self.assertNotEqual(found.certificate.names, ())

    def test_no_answer_no_tls_and_nonsense_are_told_apart(self) -> None:
        link = chain_of(("ecdsa", "ecdsa"), (HOST,), now=self.now)[0]
        self.assertEqual(self.seen(b"220 mail.example.org ESMTP\r\n").fault, HostFault.TLS)
        self.assertEqual(self.seen(b"220 no web server\r\n", link).fault, HostFault.HTTP)
        (found,) = fetched(HOST, ["127.0.0.1"], port=1, seconds=5.0)
        self.assertEqual((found.fault, found.why), (HostFault.UNREACHABLE, "Connection refused"))
        found = self.seen(b"HTTP/1.1 301 Moved\r\nLocation: https://www.example.org/\r\nContent-Length: 0\r\n\r\n", link)
        self.assertEqual((found.status, found.location), (301, "https://www.example.org/"))

    def test_an_answer_without_end_ends(self) -> None:
        link = chain_of(("ecdsa", "ecdsa"), (HOST,), now=self.now)[0]
        found = self.seen(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nversion: ST", link, seconds=0.5, stays=True)
        self.assertEqual(found.fault, HostFault.HTTP)
        self.assertEqual(len(self.seen(GOOD.partition(b"\r\n")[0] + b"\r\n\r\n" + b"a" * 100_000, link).body), 65_537)
