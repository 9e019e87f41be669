"""Mail for other hosts: through their mail exchangers, through a smarthost, over a few connections."""

from __future__ import annotations

import json
import threading
from collections import Counter

from twisted.trial.unittest import FailTest

from tests.dns.unbound import Unbound
from tests.scenarios.support import BASIC, ScenarioCase, Server, wait_until

FAR = BASIC.replace('[domain."example.org"]', '[domain."far.example"]').replace("mx.example.org", "mx.far.example")
RETRY = '\n[queue]\nretry = ["1s"]\n'
ZONES = {
    "far.example": [
        "far.example. 300 IN MX 10 dead.far.example.",
        "far.example. 300 IN MX 20 mx.far.example.",
        "dead.far.example. 300 IN A 127.0.0.9",
        "mx.far.example. 300 IN A 127.0.0.1",
    ],
    "null.example": ["null.example. 300 IN MX 0 ."],
}


class Relaying(ScenarioCase):
    def through_exchangers(self, port: int, more: str = RETRY) -> Server:
        names = Unbound(ZONES)
        self.addCleanup(names.stop)
        names.start()
        relay = f'[relay]\nuse = "mx"\nport = {port}\nnetworks = ["127.0.0.0/8"]\n'
        return self.serve(f'{BASIC}{relay}[dns]\nservers = ["{names.address}"]\n{more}')

    def through_smarthost(self, port: int, more: str = RETRY) -> Server:
        relay = f'[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\nport = {port}\nnetworks = ["127.0.0.0/8"]\nprobe = "200ms"\n'
        return self.serve(BASIC + relay + more)

    def test_the_second_exchanger_gets_what_the_first_does_not_take(self) -> None:
        far = self.serve(FAR, accounts=("alice@far.example",))
        front = self.through_exchangers(far.port)
        answer = front.send(b"Subject: far\r\n\r\n..dot\r\nyes", to="alice@far.example")
        self.assertEqual(answer.code, 250)
        [stored] = far.wait_for_mail("alice", 1)
        self.assertEqual(stored.body, b".dot\r\nyes\r\n")
        wait_until(lambda: not json.loads(front.command("queue", "list", "--json").stdout), front.log)
        road = front.command("explain", answer.id).stdout
        self.assertIn(f"mx.far.example[127.0.0.1]:{far.port}", road)
        self.assertIn(f"before: dead.far.example[127.0.0.9]:{far.port}: 451 4.4.1 No connection", road)

    def test_a_domain_that_takes_no_mail_fails_at_once(self) -> None:
        front = self.through_exchangers(25)
        self.assertEqual(front.send(b"Subject: x\r\n\r\nyes", to="nobody@null.example").code, 250)
        wait_until(lambda: "556 5.1.10" in front.log(), front.log)

    def test_messages_share_connections_to_a_smarthost(self) -> None:
        far = self.serve(FAR, accounts=("alice@far.example",))
        front = self.through_smarthost(far.port)
        for n in range(20):
            self.assertEqual(front.send(b"Subject: %d\r\n\r\nyes" % n, to="alice@far.example").code, 250)
        far.wait_for_mail("alice", 20)
        self.assertLessEqual(far.log().count(" connected "), 10)  # the harness has looked for the port, too
        self.assertNotIn("relay", far.status())  # it has none

        def pool() -> dict[str, float]:
            return dict(front.status()["relay"])

        wait_until(lambda: pool()["opened"] + pool()["reused"] >= 20, lambda: str(pool()))
        figures = pool()
        self.assertLessEqual(figures["opened"], 10)
        self.assertEqual((figures["failed"], figures["stale"]), (0, 0))
        self.assertTrue(0.5 <= figures["hit_rate"] < 1, figures)

    def test_mail_waits_for_a_smarthost_that_is_down_and_goes_when_it_is_back(self) -> None:
        far = self.serve(FAR, accounts=("alice@far.example",))
        front = self.through_smarthost(far.port)
        far.stop()
        for n in range(5):
            self.assertEqual(front.send(b"Subject: %d\r\n\r\nyes" % n, to="alice@far.example").code, 250)
        wait_until(lambda: front.log().count(" deferred ") >= 5, front.log)
        far.restart()
        self.assertEqual(len(far.wait_for_mail("alice", 5)), 5)

    def test_what_was_accepted_before_a_kill_reaches_the_other_host(self) -> None:
        far = self.serve(FAR, accounts=("alice@far.example",))
        front = self.through_smarthost(far.port)
        far.stop()
        sent = {f"number {n}" for n in range(10)}
        for subject in sorted(sent):
            self.assertEqual(front.send(f"Subject: {subject}\r\n\r\nyes".encode(), to="alice@far.example").code, 250)
        front.kill()
        far.restart()
        front.restart()
        wait_until(lambda: {one.header("Subject") for one in far.messages("alice")} == sent, front.log, seconds=20)

    def test_a_kill_under_load_loses_nothing_and_doubles_only_what_was_on_its_way(self) -> None:
        far = self.serve(FAR, accounts=("alice@far.example",))
        front = self.through_smarthost(far.port)
        acknowledged: list[str] = []
        killing = threading.Event()

        def load(name: int) -> None:
            n = 0
            while not killing.is_set():
                subject = f"{name}.{n}"
                try:
                    answer = front.send(f"Subject: {subject}\r\n\r\nyes".encode(), to="alice@far.example")
                except (OSError, EOFError, FailTest):
                    return
                if answer.code == 250:
                    acknowledged.append(subject)
                n += 1

        threads = [threading.Thread(target=load, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(acknowledged) > 100, front.log)
        front.kill()
        killing.set()
        for thread in threads:
            thread.join(20)
        front.restart()

        def arrived() -> Counter[str | None]:
            return Counter(one.header("Subject") for one in far.messages("alice"))

        wait_until(lambda: set(acknowledged) <= set(arrived()), front.log, seconds=30)
        wait_until(lambda: not json.loads(front.command("queue", "list", "--json").stdout), front.log)
        counted = arrived()
        # What was relayed in the last moments and not yet settled comes twice, and never more often.
        self.assertLessEqual(max(counted.values()), 2)
