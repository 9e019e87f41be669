"""The whole server with real scanners: what they say counts, and mail waits where they are gone."""

from __future__ import annotations

import json
import os
import signal
import socket

from tests.filters.scanner import EICAR, RealScanner
from tests.filters.test_rspamd import CONFIGURATION, RULES
from tests.ports import free_port
from tests.requires import require_tool
from tests.scenarios.support import BASIC, ScenarioCase, wait_until

FILTERS = """
[limits]
memory_bytes = "64K"

[[filter]]
use = "clamav"
endpoint = "tcp:127.0.0.1:{clamd}"

[[filter]]
use = "rspamd"
endpoint = "tcp:127.0.0.1:{rspamd}"
client_names = false
"""


LINES = 2_000  # more than this server keeps in memory


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Scanners(ScenarioCase):
    def test_clamd_and_rspamd_judge_and_nothing_is_taken_while_one_of_them_is_gone(self) -> None:
        clamd, rspamd = RealScanner(self), RealScanner(self)
        ports = {"clamd": free_port(), "rspamd": free_port()}
        clamd.write("db/eicar.ndb", f"Test.Eicar:0:*:{EICAR.hex()}\n")
        configuration = clamd.write(
            "clamd.conf", f"DatabaseDirectory {clamd.folder}/db\nTCPSocket {ports['clamd']}\nTCPAddr 127.0.0.1\nForeground yes\n"
        )
        clamd.launch([require_tool("clamd"), "-c", configuration])
        rspamd.write("rules.lua", RULES)
        rspamd.write("suffixes", "org\nnet\n")
        path = rspamd.write("rspamd.conf", CONFIGURATION.format(folder=rspamd.folder, port=ports["rspamd"]))
        process = rspamd.launch([require_tool("rspamd"), "-f", "-i", "-c", path])
        server = self.serve(BASIC + FILTERS.format(**ports))
        for port, scanner in ((ports["clamd"], clamd), (ports["rspamd"], rspamd)):
            wait_until(lambda port=port: listens(port), scanner.output)

        large = b"z" * 70 + b"\r\n"
        for body in (b"Subject: x\r\n\r\n" + EICAR, b"Subject: x\r\n\r\n" + large * LINES + EICAR):
            refused = server.send(body)
            self.assertEqual(refused.code, 550, refused)
            self.assertNotIn("Eicar", refused.text)
        self.assertEqual(server.send(b"Subject: a fraud\r\n\r\nx").code, 550)
        self.assertEqual(server.send(b"Subject: an offer\r\n\r\nx").code, 250)
        [junk] = server.wait_for_mail("alice", folder=".Junk")
        self.assertEqual(junk.header("X-Test"), "yes")
        accepted = server.send(b"X-Old: 1\r\nSubject: hello\r\n\r\n" + large * LINES)
        self.assertEqual(accepted.code, 250)
        [stored] = server.wait_for_mail("alice")
        self.assertEqual((stored.header("X-Test"), stored.header("X-Old")), ("yes", None))
        self.assertEqual(stored.body, large * LINES + b"\r\n")
        road = json.loads(server.command("explain", accepted.id, "--json").stdout)
        found = [one for step in road if step["step"] == "filter" for one in step.get("findings", ())]
        self.assertTrue(any("rspamd.FACTS" in one for one in found), road)

        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not listens(ports["rspamd"]), rspamd.output)
        answer = server.send(b"Subject: hello\r\n\r\nx")
        self.assertTrue(400 <= answer.code < 500, answer)
        self.assertEqual(server.send(b"Subject: x\r\n\r\n" + EICAR).code, 550, "what clamd says counts all the same")
        self.assertEqual(len(server.messages("alice")), 1)
