"""Mail for other hosts: through their mail exchangers, through a smarthost, over a few connections."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections import Counter

from twisted.trial.unittest import FailTest

from tests.dns.unbound import Unbound
from tests.rounds import rounds
from tests.scenarios.support import BASIC, ScenarioCase, Server, wait_until

FAR = BASIC.replace('[domain."example.org"]', '[domain."far.example"]').replace("mx.example.org", "mx.far.example")
RETRY = '\n[queue]\nretry = ["1s"]\n'
KILLS = rounds(2)
ON_THEIR_WAY = 20  # connections of the pool
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

    def through_smarthost(self, port: int, more: str = RETRY, probe: str = "200ms") -> Server:
        relay = f'[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\nport = {port}\nnetworks = ["127.0.0.0/8"]\nprobe = "{probe}"\n'
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
            far.wait_for_mail("alice", n + 1)  # or a slow machine opens one for each that still waits
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

    def test_a_persons_retry_does_not_wait_for_the_next_probe(self) -> None:
        far = self.serve(FAR, accounts=("alice@far.example",))
        front = self.through_smarthost(far.port, more="", probe="10m")
        far.stop()
        self.assertEqual(front.send(b"Subject: now\r\n\r\nyes", to="alice@far.example").code, 250)
        wait_until(lambda: " deferred " in front.log(), front.log)
        far.restart()
        self.assertIn("1 message", front.command("queue", "retry", "--all").stdout)
        self.assertEqual(far.wait_for_mail("alice", 1)[0].header("Subject"), "now")

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

    def test_kills_under_load_lose_nothing_and_double_only_what_was_on_its_way(self) -> None:
        far = self.serve(FAR, accounts=("alice@far.example",))
        front = self.through_smarthost(far.port)
        acknowledged: list[str] = []
        doubles = 0
        for kill in range(KILLS):
            before = arrived(far)
            self.load_until_killed(front, acknowledged, f"kill {kill}")
            wait_until(lambda: is_empty(far), far.log)  # what it has taken stands in the Maildir
            first = [subject for subject in arrived(far) if subject not in set(before)]
            front.restart()
            wait_until(lambda: set(acknowledged) <= set(arrived(far)), front.log, seconds=30)
            wait_until(lambda: is_empty(front), front.log)
            copies = Counter(arrived(far))
            self.assertLessEqual(max(copies.values()), 2)
            doubled = {subject for subject, count in copies.items() if count > 1 and subject in first}
            doubles += len(doubled)
            # Only what another host had taken in the last moments, and the store had not yet noted, comes twice: the end of the
            # row in which messages arrived, but for those that overtook each other on the pool's connections.
            places = [first.index(subject) for subject in doubled]
            window = len(first) - min(places, default=len(first))
            self.assertLessEqual(window, len(doubled) + ON_THEIR_WAY, f"{len(doubled)} doubled, of the last {window}")
        self.assertLessEqual(doubles, len(acknowledged) // 2, f"{KILLS} kills, {len(acknowledged)} messages")

    def test_hands_on_the_queue_and_restarts_of_both_hosts_lose_nothing_and_double_nothing(self) -> None:
        far = self.serve(FAR, accounts=("alice@far.example",))
        front = self.through_smarthost(far.port)
        acknowledged: list[str] = []
        said: list[tuple[int, str]] = []
        over = threading.Event()

        def load(client: int) -> None:
            for n in itertools.count():
                if over.is_set():
                    return
                subject = f"client {client}, {n}"
                with contextlib.suppress(OSError, EOFError, FailTest):  # it is down, or about to be
                    if front.send(f"Subject: {subject}\r\n\r\nyes".encode(), to="alice@far.example").code == 250:
                        acknowledged.append(subject)

        def lay_hands_on_it() -> None:
            for words in itertools.cycle(("retry --all", "hold --all", "release --state held", "list")):
                if over.is_set():
                    return
                done = front.command("queue", *words.split())
                said.append((done.returncode, done.stderr))

        threads = [threading.Thread(target=load, args=(client,)) for client in range(3)]
        threads.append(threading.Thread(target=lay_hands_on_it))
        for thread in threads:
            thread.start()
        try:
            for change in (far.stop, far.restart, front.stop, front.restart) * 3:
                enough = len(acknowledged) + (0 if change == front.restart else 60)
                wait_until(lambda enough=enough: len(acknowledged) >= enough, front.log)
                change()
        finally:
            over.set()
            for thread in threads:
                thread.join(40)
        front.command("queue", "release", "--state", "held")
        front.command("queue", "retry", "--all")
        wait_until(lambda: is_empty(front) and is_empty(far), lambda: f"{front.log()}\n{far.log()}", seconds=40)
        copies = Counter(arrived(far))
        self.assertEqual(set(acknowledged) - set(copies), set())
        self.assertEqual([subject for subject, count in copies.items() if count > 1], [])
        self.assertEqual([one for one in said if one[0] not in (0, 1, 69) or "its log says more" in one[1]], [])

    def load_until_killed(self, front: Server, acknowledged: list[str], name: str) -> None:
        """Four clients send as fast as they can until the server is killed; what was acknowledged is noted."""
        killing = threading.Event()
        enough = len(acknowledged) + 100

        def load(client: int) -> None:
            n = 0
            while not killing.is_set():
                subject = f"{name}, client {client}, {n}"
                try:
                    answer = front.send(f"Subject: {subject}\r\n\r\nyes".encode(), to="alice@far.example")
                except (OSError, EOFError, FailTest):
                    return
                if answer.code == 250:
                    acknowledged.append(subject)
                n += 1

        threads = [threading.Thread(target=load, args=(client,)) for client in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(acknowledged) > enough, front.log)
        front.kill()
        killing.set()
        for thread in threads:
            thread.join(20)


def is_empty(server: Server) -> bool:
    """Nothing is in its queue."""
    return not json.loads(server.command("queue", "list", "--json").stdout)


def arrived(far: Server) -> list[str]:
    """The subjects of alice's messages, in the order in which they came."""
    return [one.header("Subject") or "" for one in sorted(far.messages("alice"), key=lambda one: one.path.name)]
