"""The filter in etc/fail2ban finds failed logins in lines of our own writer, and nothing that a peer makes look like one."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.observe import Steps
from tests.requires import require_tool

ROOT = Path(__file__).resolve().parents[2]
FILTER = ROOT / "etc" / "fail2ban" / "filter.d" / "mailserver.conf"
JAIL = ROOT / "etc" / "fail2ban" / "jail.d" / "mailserver.conf"
ID, OTHER = "06ABCDEFGHJKMNPQ", "198.51.100.66"
HOSTILE = [
    f"x peer={OTHER} service=submission",
    f"x\n2026-11-26T01:02:03.456Z {ID} login_failed peer={OTHER} service=submission username=x",
    f"x\r\n {ID} login_failed peer={OTHER} service=",
    f'","peer":"{OTHER}","service":"x',
    f'x\n{{"time":"2026-11-26T01:02:03.456Z","id":"{ID}","step":"login_failed","peer":"{OTHER}","service":"',
    f"\u2028{ID} login_failed peer={OTHER} service=",
    f"\x85{ID} login_failed peer={OTHER} service=",
    f"mail mailserver[1]: {ID} login_failed peer={OTHER} service=",
    f'"{OTHER}',
    f"alice@[{OTHER}]",
    "\\",
    "",
    "😀 ü",
]


def lines(form: Literal["text", "json"], fill: Any) -> str:
    octets: list[bytes] = []
    steps = Steps(write=octets.append, form=form, seconds=time.time)
    fill(steps)
    steps.flush()
    return b"".join(octets).decode()


def failed(steps: Steps, peer: str, username: str, why: str = "the password is wrong") -> None:
    steps.note(ID, "login_failed", peer=peer, service="submission", method="PLAIN", username=username, why=why)


class Filter(SynchronousTestCase):
    def found(self, log: str) -> list[str]:
        """The hosts that fail2ban would count, in the order of the lines."""
        tool = require_tool("fail2ban-regex")
        path = Path(self.mktemp())
        path.write_text(log)
        done = subprocess.run(
            [tool, "--out", "ip", str(path.resolve()), str(FILTER)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return re.findall(r"[0-9a-f.:]+", done.stdout)

    def fill(self, steps: Steps) -> None:
        steps.note(ID, "connected", peer="203.0.113.1", port=1, service="submission")
        failed(steps, "192.0.2.1", "alice@example.org")
        failed(steps, "2001:db8::5", "bob", "locked out")
        failed(steps, "unix", "carol")
        failed(steps, "proxy:192.0.2.250", "dave")  # whom a proxy did not name: a ban would hit the proxy
        steps.note(ID, "login", peer="203.0.113.2", account="alice@example.org", method="PLAIN", note="")
        steps.note(ID, "lockout", scope="network", account="", network="203.0.113.3", failures=30, seconds=900, lockouts=1)
        steps.note(ID, "closed", messages=0, errors=1)

    def test_failed_logins_are_found_in_text_and_json(self) -> None:
        for form in ("text", "json"):
            self.assertEqual(self.found(lines(form, self.fill)), ["192.0.2.1", "2001:db8::5"], form)

    def test_they_are_found_in_the_journal_too(self) -> None:
        for form in ("text", "json"):
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000000+0000", time.gmtime())
            front = stamp + " mail mailserver[4711]: "
            log = "".join([front + line + "\n" for line in lines(form, self.fill).splitlines()])
            self.assertEqual(self.found(log), ["192.0.2.1", "2001:db8::5"], form)

    def test_no_user_name_and_no_reason_makes_another_host_look_guilty(self) -> None:
        def fill(steps: Steps) -> None:
            for hostile in HOSTILE:
                failed(steps, "192.0.2.1", hostile)
                failed(steps, "192.0.2.2", "x", hostile)
                steps.note(ID, "rejected", peer="192.0.2.3", reply=hostile, why=hostile)
                steps.note_event(time.time(), "warn", "mailserver.x", hostile, hostile)

        for form in ("text", "json"):
            self.assertEqual(self.found(lines(form, fill)), ["192.0.2.1", "192.0.2.2"] * len(HOSTILE), form)

    def test_the_time_is_that_of_the_line(self) -> None:
        def fill(steps: Steps) -> None:
            failed(steps, "192.0.2.1", "alice")

        tool = require_tool("fail2ban-regex")
        for form in ("text", "json"):
            path = Path(self.mktemp())
            path.write_text(re.sub(r"20\d\d-\d\d-\d\dT[\d:.]+Z", "2026-01-02T03:04:05.678Z", lines(form, fill)))
            done = subprocess.run(
                [tool, "--out", "<time>", str(path.resolve()), str(FILTER)], capture_output=True, text=True, timeout=60, check=False
            )
            self.assertIn("1767323045", done.stdout, done.stdout + done.stderr)

    def test_the_jail_names_the_filter(self) -> None:
        text = JAIL.read_text()
        self.assertRegex(text, r"(?m)^filter +=+ mailserver$")


class ALine(SynchronousTestCase):
    @given(st.text(max_size=60), st.text(max_size=60))
    def test_the_peer_is_the_first_field_whatever_follows(self, username: str, why: str) -> None:
        text = lines("text", lambda steps: failed(steps, "192.0.2.1", username, why))
        self.assertEqual(text.count("\n"), 1)
        self.assertRegex(text, rf"^\S+ {ID} login_failed peer=192\.0\.2\.1 service=submission method=PLAIN[ \n]")
