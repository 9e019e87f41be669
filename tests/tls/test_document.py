"""docs/tls.md: its examples load, its tables say what the code does, its authority can be made and used."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from cryptography import x509
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.check_tls import look_at_tls
from mailserver.config import load
from mailserver.plugins.catalogue import discover
from mailserver.tls.contexts import CIPHERS, ClientCertificates
from mailserver.tls.identity import Pair, extension_of, read_authorities, read_identity, read_revocations
from mailserver.transport.certificate_faults import FAULTS
from tests.documents import blocks, page_text
from tests.requires import require_tool
from tests.tls.authority import Authority

PAGE = page_text("tls.md")
TOP = 'hostname = "mail.example.org"\ndata = "data"\n'
LISTEN = '[[listen]]\nservice = "mx"\nendpoint = "tcp:2525"\ntls = "starttls"\n'


class Page(SynchronousTestCase):
    def test_every_example_is_a_configuration(self) -> None:
        examples = blocks(PAGE, "toml")
        self.assertEqual(len(examples), 4)
        for example in examples:
            path = self.mktemp()
            Path(path).write_text(TOP + ("" if "[[listen]]" in example else LISTEN) + example)
            load(path, discover().options_of)

    def test_check_is_content_with_the_example_of_several_names(self) -> None:
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        [example] = [one for one in blocks(PAGE, "toml") if "[tls.name." in one]
        (folder / "mailserver.toml").write_text(TOP + LISTEN + example)
        authority = Authority()
        for name, file in (("mail.example.org",) * 2, ("mail.example.net",) * 2, ("*.example.com", "example.com")):
            authority.leaf(name).write(str(folder), file)
        found = look_at_tls(load(folder / "mailserver.toml", discover().options_of))
        self.assertEqual((found.faults, found.warnings), ([], []))

    def test_these_are_the_ciphers(self) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_cipher_list(CIPHERS.encode())
        rows = re.findall(r"(?m)^\| 1\.[23] \| (.*) \|$", PAGE)
        self.assertEqual(
            set(re.findall(r"`(.*?)`", " ".join(rows))), set(SSL.Connection(context, None).get_cipher_list())
        )

    def test_every_fault_of_a_client_certificate_is_explained_and_no_other(self) -> None:
        table = PAGE.partition("| fault |")[2].partition("\n\n")[0]
        cells = [row.split(" | ")[0] for row in table.splitlines()[2:]]
        self.assertEqual(set(re.findall(r"`(.*?)`", " ".join(cells))), set(FAULTS.values()))

    def test_every_way_to_ask_for_one_is_explained(self) -> None:
        table = PAGE.partition("| `client_certificate` |")[2].partition("\n\n")[0]
        self.assertEqual(re.findall(r"(?m)^\| `(\w+)`", table), [one.value for one in ClientCertificates])


class OwnAuthority(SynchronousTestCase):
    def test_the_commands_make_an_authority_a_certificate_and_a_list_that_revokes_it(self) -> None:
        require_tool("openssl")
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        [script] = blocks(PAGE, "sh")
        done = subprocess.run(["sh", "-e"], input=script, cwd=folder, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)

        def path(name: str) -> str:
            return os.path.join(folder, name)

        [authority] = read_authorities(path("clients-ca.pem"))
        alice = read_identity(Pair(path("alice.pem"), path("alice.key"))).leaf
        alice.verify_directly_issued_by(authority)
        self.assertEqual(
            extension_of(alice, x509.SubjectAlternativeName).get_values_for_type(x509.RFC822Name), ["alice@example.org"]
        )
        [revoked] = read_revocations(path("clients-crl.pem"))
        self.assertIsNotNone(revoked.get_revoked_certificate_by_serial_number(alice.serial_number))
        self.assertIn("sha256 Fingerprint=", done.stdout)
        crl = ["-crl_check", "-CRLfile", path("clients-crl.pem")]
        for more, says in (([], "alice.pem: OK"), (crl, "certificate revoked")):
            verify = ["openssl", "verify", "-purpose", "sslclient", "-CAfile", path("clients-ca.pem"), *more, path("alice.pem")]
            said = subprocess.run(verify, capture_output=True, text=True, check=False)
            self.assertIn(says, said.stdout + said.stderr)
