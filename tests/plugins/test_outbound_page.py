"""docs/plugins/outbound.md: its example runs in a real server that sends to another one, and its tables name what there is."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail import outbound_answers
from tests.documents import blocks, page_text
from tests.scenarios.support import BASIC, ScenarioCase, Server, wait_until
from tests.scenarios.test_relaying import FAR

PAGE = page_text("plugins/outbound.md")


class Page(SynchronousTestCase):
    def test_it_names_every_answer(self) -> None:
        for name in outbound_answers.__all__:
            if not name.endswith("Verdict"):
                self.assertIn(f"`{name}(", PAGE)


class Example(ScenarioCase):
    def front(self, far: Server, relay: str) -> Server:
        server = self.prepare(BASIC + relay + blocks(PAGE, "toml")[0].replace("192.0.2.25", "127.0.0.1"))
        example = blocks(PAGE, "python")[0]
        self.assertIn(", 25, 0)", example)
        server.install_plugin("tenants_plugin", example.replace(", 25, 0)", f", {far.port}, 0)"))
        return server

    def test_it_serves_as_the_page_says(self) -> None:
        far = self.serve(FAR, accounts=("alice@far.example",))
        front = self.front(
            far, '[relay]\nuse = "mx"\nnetworks = ["127.0.0.0/8"]\n[dns]\nservers = ["127.0.0.1:1"]\n[queue]\nretry = ["1h"]\n'
        )
        front.start()
        self.assertEqual(front.send(b"Subject: one\r\n\r\nx", to="alice@far.example", sender="bob@big.example").code, 250)
        [stored] = far.wait_for_mail("alice", 1)
        self.assertIn(b"X-Tenant: big.example\n", stored.data)
        late = front.send(b"Subject: two\r\n\r\nx", to="alice@far.example", sender="bob@late.example")
        wait_until(lambda: "late.example has not paid" in front.command("explain", late.id).stdout, front.log)
        self.assertIn("deferred", front.command("explain", late.id).stdout)
        gone = front.send(b"Subject: three\r\n\r\nx", to="alice@far.example", sender="alice@gone.example")
        wait_until(lambda: "gone.example is closed" in front.command("explain", gone.id).stdout, front.log)
        wait_until(lambda: gone.id not in front.command("queue", "list").stdout, front.log)
        self.assertNotIn("reported", front.command("explain", gone.id).stdout)  # anybody may have forged that sender
        self.assertEqual(front.send(b"Subject: four\r\n\r\nx", to="nobody@far.example", sender="alice@example.org").code, 250)

    def test_a_relay_that_cannot_be_told_hosts_stops_the_start_with_the_name(self) -> None:
        far = self.serve(FAR, accounts=("alice@far.example",))
        front = self.front(far, '[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\n')
        front.launch()
        assert front.process is not None
        self.assertEqual(front.process.wait(30), 78)
        front.process = None
        self.assertIn('filter tenants: it names hosts, and [relay] use = "smarthost" cannot be told any', front.log())
