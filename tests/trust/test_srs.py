"""Return paths of forwarded mail (SRS); postsrsd is the other side."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.trust.srs import NotOurs, ReturnPathKeys, SenderToken, is_return_path, token_of
from tests.ports import free_port
from tests.requires import require_tool

DAY = 20_787
KEY, OLD, OTHER = b"k" * 32, b"o" * 32, b"x" * 32
OURS = ReturnPathKeys([KEY])
ATOMS = st.text(st.sampled_from("abcXYZ019!#$%&'*+/=?^_`{|}~-."), min_size=1, max_size=64)
DOMAINS = st.sampled_from(["example.net", "EXAMPLE.net", "a.b.example.com", "x", "xn--bcher-kva.example"])


def made(text: str, keys: ReturnPathKeys = OURS, day: int = DAY) -> Address:
    """The return path in our domain."""
    found = keys.made(Address.parse(text), "example.org", day)
    assert found is not None
    return found


class ReturnPaths(SynchronousTestCase):
    """What is made, and what is read back."""

    def test_a_return_path_leads_to_the_sender_it_was_made_for(self) -> None:
        path = made("bob@example.net")
        self.assertRegex(str(path), r"\ASRS0=[A-Z2-7]{8}=[A-Z2-7]{2}=example\.net=bob@example\.org\Z")
        self.assertEqual(OURS.opened(path.local, DAY), Address("bob", "example.net"))
        self.assertTrue(is_return_path(path.local))

    def test_case_makes_no_difference(self) -> None:
        path = made("Bob.Smith@Example.net")
        for mangled in (path.local.lower(), path.local.upper(), path.local.swapcase()):
            found = OURS.opened(mangled, DAY)
            assert isinstance(found, Address)
            self.assertEqual(str(found).lower(), "bob.smith@example.net")

    def test_whoever_has_no_key_makes_none(self) -> None:
        path = made("bob@example.net", ReturnPathKeys([OTHER]))
        self.assertIsInstance(OURS.opened(path.local, DAY), NotOurs)

    def test_no_character_can_be_changed(self) -> None:
        local = made("bob@example.net").local
        for n, character in enumerate(local):
            other = "b" if character.lower() != "b" else "c"
            self.assertIsInstance(OURS.opened(local[:n] + other + local[n + 1 :], DAY), NotOurs, f"at {n}")

    def test_nothing_moves_between_the_domain_and_the_local_part(self) -> None:
        _, hashed, stamp, _, _ = made("bob@example.net").local.split("=")
        self.assertIsInstance(OURS.opened(f"SRS0={hashed}={stamp}=example.ne=tbob", DAY), NotOurs)
        self.assertIsInstance(OURS.opened(f"SRS0={hashed}={stamp}=example.net=b=ob", DAY), NotOurs)

    def test_what_is_made_of_anothers_return_path_has_a_hash_for_nothing_else(self) -> None:
        name = token_of(Address("bob", "example.net"), KEY)
        stamp = str(OURS.for_token(name, "example.org", DAY)).split("=")[2]
        again = made(f"SRS0-={name}@{stamp.lower()}")  # the fields of a token of that day, in the form that another has made
        forged = f"SRS0={again.local.split('=')[1]}={stamp}=-={name}"
        self.assertIsInstance(OURS.opened(forged, DAY), NotOurs)

    def test_it_expires_after_twenty_one_days(self) -> None:
        local = made("bob@example.net").local
        for day in (DAY, DAY + 21, DAY - 1):
            self.assertIsInstance(OURS.opened(local, day), Address, f"{day - DAY}")
        for day in (DAY + 22, DAY + 500, DAY - 2):
            found = OURS.opened(local, day)
            assert isinstance(found, NotOurs)
            self.assertIn("expired", found.why)

    def test_the_last_keys_are_still_understood_and_the_first_makes(self) -> None:
        old = made("bob@example.net", ReturnPathKeys([OLD]))
        both = ReturnPathKeys([KEY, OLD])
        self.assertEqual(both.opened(old.local, DAY), Address("bob", "example.net"))
        self.assertEqual(made("bob@example.net", both), made("bob@example.net"))
        self.assertIsInstance(OURS.opened(old.local, DAY), NotOurs)

    def test_what_another_has_forwarded_already_goes_back_to_the_first(self) -> None:
        once = made("SRS0=AAAA=BB=x.example=ann@first.example")
        self.assertRegex(once.local, r"\ASRS1=[A-Z2-7]{8}=first\.example==AAAA=BB=x\.example=ann\Z")
        self.assertEqual(OURS.opened(once.local, DAY), Address("SRS0=AAAA=BB=x.example=ann", "first.example"))
        third = ReturnPathKeys([OTHER]).made(once, "third.example", DAY)
        assert third is not None
        self.assertEqual(ReturnPathKeys([OTHER]).opened(third.local, DAY), Address("SRS0=AAAA=BB=x.example=ann", "first.example"))
        self.assertEqual(made("SRS0+AAAA=BB=x.example=ann@first.example").local.split("=", 3)[3][0], "+")

    def test_what_has_no_room_or_no_plain_form_gets_none(self) -> None:
        for text in (f"{'a' * 40}@example.net", '"john doe"@example.net', "bob@[192.0.2.1]", "a..b@example.net"):
            self.assertIsNone(OURS.made(Address.parse(text), "example.org", DAY), text)
        self.assertIsNone(OURS.made(Address("jörg", "example.net"), "example.org", DAY))
        self.assertIsNone(OURS.made(Address("bob", "bücher.example"), "example.org", DAY))

    def test_a_token_stands_for_such_a_sender(self) -> None:
        name = token_of(Address("jörg", "bücher.example"), KEY)
        path = OURS.for_token(name, "example.org", DAY)
        self.assertLessEqual(len(path.local), 64)
        self.assertEqual(OURS.opened(path.local.upper(), DAY), SenderToken(name))
        self.assertIsInstance(OURS.opened(path.local, DAY + 22), NotOurs)
        self.assertIsInstance(OURS.opened(path.local[:-1] + "7", DAY), NotOurs)
        self.assertNotEqual(name, token_of(Address("jorg", "bücher.example"), KEY))

    @given(ATOMS, DOMAINS, st.integers(0, 40_000), st.integers(0, 21))
    def test_any_sender_is_read_back_or_gets_none(self, local: str, domain: str, day: int, age: int) -> None:
        path = OURS.made(Address(local, domain), "example.org", day)
        if path is None:
            return
        self.assertLessEqual(len(path.local), 64)
        self.assertEqual(Address.parse(str(path)), path)
        self.assertEqual(OURS.opened(path.local, day + age), Address(local, domain))

    @given(st.text(max_size=80) | st.text(st.sampled_from("SRS01=-+aB27.@"), max_size=80))
    def test_any_local_part_has_an_answer(self, local: str) -> None:
        for text in (local, f"SRS0={local}", f"SRS1={local}"):
            self.assertIsInstance(OURS.opened(text, DAY), NotOurs)
        token_of(Address(local, "example.net"), KEY)
        OURS.made(Address(local, "example.net"), "example.org", DAY)


class BesidePostSRSd(SynchronousTestCase):
    """A forwarder that is not ours, before us and behind us, and the one that we take over from."""

    def setUp(self) -> None:
        """It is there in a few milliseconds."""
        program = require_tool("postsrsd")
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "secret")
        with open(path, "wb") as file:
            file.write(b"tHe-seCret\n")
        self._ports = free_port(), free_port()
        forward, reverse = map(str, self._ports)
        process = subprocess.Popen(
            [program, "-4", "-s", path, "-d", "third.example", "-f", forward, "-r", reverse],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

    def ask(self, n: int, address: str) -> str:
        """What a lookup table of Postfix would hear."""
        until = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self._ports[n]), 20) as connection:
                    connection.sendall(f"get {address}\n".encode())
                    return connection.makefile("r", encoding="ascii").readline().strip()
            except ConnectionRefusedError:
                if time.monotonic() > until:
                    raise

    def rewritten(self, address: str) -> str:
        """Its return path."""
        code, _, path = self.ask(0, address).partition(" ")
        self.assertEqual(code, "200", path)
        return path

    def test_it_forwards_ours_and_a_bounce_comes_back_to_us(self) -> None:
        ours = made("bob@example.net")
        theirs = self.rewritten(str(ours))
        self.assertTrue(theirs.startswith("SRS1="), theirs)
        self.assertEqual(self.ask(1, theirs), f"200 {ours}")

    def test_it_forwards_a_token_of_ours(self) -> None:
        ours = OURS.for_token(token_of(Address("jörg", "x.example"), KEY), "example.org", DAY)
        self.assertEqual(self.ask(1, self.rewritten(str(ours))), f"200 {ours}")

    def test_we_forward_its_and_a_bounce_comes_back_to_it(self) -> None:
        theirs = self.rewritten("bob@example.net")
        back = OURS.opened(made(theirs).local, DAY)
        self.assertEqual(str(back), theirs)
        self.assertEqual(self.ask(1, str(back)), "200 bob@example.net")

    def test_with_its_secret_we_understand_what_it_has_made(self) -> None:
        both = ReturnPathKeys([KEY], former=[b"tHe-seCret"])
        today = int(time.time() // 86_400)
        for sender in ("bob@example.net", "Ann.O+x=y@Example.NET"):
            theirs = Address.parse(self.rewritten(sender))
            for local in (theirs.local, theirs.local.lower()):
                self.assertEqual(str(both.opened(local, today)).lower(), sender.lower())
            self.assertIsInstance(both.opened(theirs.local, today + 30), NotOurs)
            self.assertIsInstance(OURS.opened(theirs.local, today), NotOurs)
        twice = Address.parse(self.rewritten("SRS0=AAAA=BB=x.example=y@first.example"))
        self.assertEqual(both.opened(twice.local, today), Address("SRS0=AAAA=BB=x.example=y", "first.example"))

    def test_it_understands_what_we_make_with_its_secret(self) -> None:
        both = ReturnPathKeys([KEY], former=[b"tHe-seCret"])
        path = both.former_made(Address("bob", "example.net"), "third.example", int(time.time() // 86_400))
        self.assertEqual(self.ask(1, str(path)), "200 bob@example.net")
