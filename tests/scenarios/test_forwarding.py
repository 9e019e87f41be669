"""Mail that leaves by an alias, over sockets: SPF passes at the next host, and a bounce comes back to who sent it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.dns.unbound import Unbound
from tests.scenarios.support import BASIC, ScenarioCase, Server, Wire, wait_until

ALIASES = """
[domain."example.org".aliases]
sales = ["ann@far.example", "alice@example.org"]
gone = "nobody@far.example"
"""
FAR = (
    BASIC.replace('[domain."example.org"]', '[domain."far.example"]\n[domain."sender.example"]')
    .replace("mx.example.org", "mx.far.example")
    + '[[filter]]\nuse = "spf"\nnetworks = []\n[[filter]]\nuse = "authentication_results"\n'
)
ZONES = {
    "example.org": ['example.org. 300 IN TXT "v=spf1 ip4:127.0.0.1 -all"'],
    "sender.example": ['sender.example. 300 IN TXT "v=spf1 -all"'],
}
LONG = f"{'l' * 64}@sender.example"


class Forwarding(ScenarioCase):
    """Two servers: ours, and the one where the alias leads."""

    def servers(self) -> tuple[Server, Server]:
        """The far one goes by a DNS in which the sender's domain sends from nowhere."""
        names = Unbound(ZONES)
        self.addCleanup(names.stop)
        names.start()
        accounts = ("ann@far.example", "bob@sender.example", LONG)
        far = self.serve(f'{FAR}[dns]\nservers = ["{names.address}"]\n', accounts=accounts)
        relay = f'[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\nport = {far.port}\n[queue]\nretry = ["1s"]\n'
        return self.serve(BASIC + relay + ALIASES), far

    def return_path(self, far: Server, n: int) -> str:
        """That of ann's n-th message."""
        found = far.wait_for_mail("ann", n)
        latest = max(found, key=lambda one: one.path.stat().st_mtime_ns)
        path = latest.header("Return-Path") or ""
        results = latest.header("Authentication-Results") or ""
        self.assertRegex(results, r"spf=pass", far.log())
        self.assertEqual(latest.header("Delivered-To"), "ann@far.example")
        self.assertIn(b"Delivered-To: sales@example.org", latest.data)
        return path.strip("<>")

    def bounce(self, front: Server, path: str, sender: str = "") -> list[int]:
        """The codes of MAIL and RCPT, and of a bounce that follows."""
        with Wire(front.port) as wire:
            codes = wire.dialogue("EHLO mx.far.example", f"MAIL FROM:<{sender}>", f"RCPT TO:<{path}>")
            if codes[-1] != 250:
                return codes[1:]
            codes += wire.dialogue("DATA", "Subject: undeliverable\r\n\r\nno such user\r\n.")
            return codes[1:]

    def test_an_alias_leaves_with_a_return_path_and_the_bounce_comes_back_to_who_sent(self) -> None:
        front, far = self.servers()
        text = b"From: <bob@sender.example>\r\nSubject: hi\r\n\r\nhello"
        sent = front.send(text, sender="bob@sender.example", to="sales@example.org")
        self.assertEqual(sent.code, 250)
        path = self.return_path(far, 1)
        self.assertRegex(path, r"\ASRS0=[A-Z2-7]{8}=[A-Z2-7]{2}=sender\.example=bob@example\.org\Z")
        [kept] = front.wait_for_mail("alice")
        self.assertEqual((kept.header("Return-Path"), kept.header("Delivered-To")), ("<bob@sender.example>", "alice@example.org"))
        wait_until(lambda: f"return_path={path}" in front.log(), front.log)
        self.assertIn(path, front.command("explain", sent.id).stdout)
        route = front.command("route", path)
        self.assertIn(f"{path} is the return path of bob@sender.example", route.stdout)
        self.assertEqual(route.returncode, 0, route.stdout)

        self.assertEqual(self.bounce(front, path.lower()), [250, 250, 354, 250])
        [back] = far.wait_for_mail("bob")
        self.assertEqual((back.header("Return-Path"), back.header("Subject")), ("<>", "undeliverable"))

        self.assertEqual(self.bounce(front, path, "x@far.example"), [250, 550])
        forged = path.replace("=bob@", "=victim@")
        self.assertEqual(self.bounce(front, forged), [250, 550])
        for what in ("a return path takes bounces alone", "was not made here, or was changed"):
            wait_until(lambda what=what: what in front.log(), front.log)

        keys = Path(front.work) / "data-keys" / "srs"
        self.assertEqual([oct(one.stat().st_mode & 0o777) for one in (keys, *keys.iterdir())], ["0o700", "0o400"])

        # What the next host refuses is not told to a sender whom nobody has proved; it stays, failed.
        spam = front.send(b"Subject: spam\r\n\r\nbuy", sender="bob@sender.example", to="gone@example.org")
        wait_until(lambda: f"{spam.id} failed " in front.log(), front.log)
        shown = front.command("queue", "show", spam.id).stdout
        self.assertIn("its sender is not told", shown)
        self.assertIn("nobody@far.example", shown)
        self.assertEqual(len(far.messages("bob")), 1)

        # A sender without room in a local part is found again after a restart.
        self.assertEqual(front.send(b"Subject: long\r\n\r\nhello", sender=LONG, to="sales@example.org").code, 250)
        path = self.return_path(far, 2)
        self.assertLessEqual(len(path.rpartition("@")[0]), 64)
        far.stop()
        self.assertEqual(front.send(b"Subject: waits\r\n\r\nhello", sender="bob@sender.example", to="sales@example.org").code, 250)
        front.kill()
        far.restart()
        front.restart()
        self.assertRegex(self.return_path(far, 3), r"\ASRS0=.*=bob@example\.org\Z")  # also what waited for the start
        self.assertEqual(self.bounce(front, path), [250, 250, 354, 250])
        self.assertEqual(len(far.wait_for_mail("l" * 64)), 1)
        found = json.loads(front.command("route", path, "--json").stdout)
        self.assertEqual(next(hop["leads_to"] for hop in found["hops"]), [LONG])
