"""The control socket's commands, asked of a whole server: the queue, the routes, the roads, the lockouts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mailserver.control import lockouts, queue
from mailserver.control.client import CommandRefused
from mailserver.mail.address import AddressError
from mailserver.mail.faults import StorageBroken
from tests.assembly.in_process import BASIC, WholeCase

RELAY = (
    BASIC
    + """
catch_all = "bob@example.org"
[domain."example.org".aliases]
sales = ["alice@example.org", "dora@elsewhere.example"]
[relay]
use = "smarthost"
host = "127.0.0.1"
port = 1
networks = ["127.0.0.0/8", "192.0.2.0/24"]
[queue]
retry = ["1h"]
"""
)


class AskedCase(WholeCase):
    async def refused(self, words: str, command: str, **arguments: Any) -> None:
        with self.assertRaisesRegex(CommandRefused, words):
            await self.ask(command, **arguments)


class Queue(AskedCase):
    async def waiting(self, *recipients: str) -> list[str]:
        """Messages that the relay could not bring on their way; their ids."""
        self.service = await self.serve(RELAY)
        ids = [(await self.send(self.service, to=to)).id for to in recipients]

        def deferred() -> bool:
            return self.service._server.steps.counts["deferred"] >= len(ids)

        await self.until(deferred, "all are deferred")
        return ids

    async def states(self) -> dict[str, str]:
        return {one["id"]: one["state"] for one in (await self.ask("queue.list"))["entries"]}

    async def change(self, verb: str, id: str, **more: Any) -> dict[str, Any]:
        return await self.ask("queue.change", verb=verb, selection={"id": id}, by="a test", **more)

    async def steps(self, id: str) -> list[str]:
        return [step["step"] for step in (await self.ask("explain", id=id))["steps"]]

    async def test_it_is_listed_page_by_page_and_shown(self) -> None:
        one, two = await self.waiting("x@one.example", "x@two.example")
        listed = await self.ask("queue.list", limit=1)
        self.assertEqual(([entry["id"] for entry in listed["entries"]], listed["depth"]), ([one], 2))
        listed = await self.ask("queue.list", after=one)
        self.assertEqual([entry["id"] for entry in listed["entries"]], [two])
        self.assertEqual((await self.ask("queue.show", id=two))["entry"]["sender"], "sender@example.net")
        self.assertIsNone((await self.ask("queue.show", id="0000000000000000"))["entry"])
        self.assertIsNone((await self.ask("queue.show"))["entry"])
        found = await self.ask("queue.select", selection={"domain": "two.example"})
        self.assertEqual(([entry["id"] for entry in found["entries"]], found["next"], found["depth"]), ([two], None, 2))
        for limit, seen in ((0, 1), (1, 1), (10**6, 2)):
            found = await self.ask("queue.select", selection={}, limit=limit)
            self.assertEqual(len(found["entries"]), seen, limit)
        self.assertEqual((await self.ask("queue.select", selection={}, limit=1, after=found["next"] or 0))["depth"], 2)

    async def test_a_page_is_bounded(self) -> None:
        self.patch(queue, "PAGE_MOST", 1)
        one, two = await self.waiting("x@one.example", "x@two.example")
        found = await self.ask("queue.select", selection={}, limit=50)
        self.assertEqual([entry["id"] for entry in found["entries"]], [one])
        found = await self.ask("queue.select", selection={}, limit=50, after=found["next"])
        self.assertEqual([entry["id"] for entry in found["entries"]], [two])

    async def test_an_order_is_carried_out_or_only_shown(self) -> None:
        one, two = await self.waiting("x@one.example", "x@two.example")
        shown = await self.change("hold", one, dry_run=True)
        self.assertEqual(shown["done"], [{"id": one, "recipients": ["x@one.example"]}])
        self.assertEqual(await self.states(), {one: "deferred", two: "deferred"})
        self.assertEqual((await self.change("hold", one))["depth"], 2)
        self.assertEqual(await self.states(), {one: "held", two: "deferred"})
        self.assertEqual((await self.change("release", two))["done"], [], "it is not held")
        await self.change("release", one)
        await self.change("drop", two)
        self.assertEqual(list(await self.states()), [one])
        self.assertIn("dropped", await self.steps(two))

    async def test_what_is_tried_again_asks_hosts_that_were_out_of_reach(self) -> None:
        [one] = await self.waiting("x@one.example")
        remote: Any = self.service._server.remote
        forgiven: list[bool] = []
        forgive = remote.forgive
        self.patch(remote, "forgive", lambda: (forgiven.append(True), forgive()))
        await self.change("retry", one, dry_run=True)
        await self.change("retry", one, after=10**18)
        self.assertEqual(forgiven, [])
        await self.change("retry", one)
        self.assertEqual(forgiven, [True])
        await self.until(lambda: self.service._server.steps.counts["deferred"] == 2, "it was tried again")

    async def test_a_redirected_message_goes_by_the_present_routes(self) -> None:
        one, two = await self.waiting("x@one.example", "x@two.example")
        await self.change("redirect", one, to="Alice@example.org")
        await self.until(lambda: self.messages("alice"), "it arrives")
        for to, words in (("nobody at all", "is not an address"), ("", "is not an address")):
            await self.refused(words, "queue.change", verb="redirect", selection={"id": two}, to=to)
        await self.until(lambda: self.service._server.queue.depth == 1, "it has left the queue")
        self.assertEqual(list(await self.states()), [two])
        self.assertEqual([one["id"] for one in (await self.change("redirect", two, to="y@one.example"))["done"]], [two])

    async def test_nothing_is_redirected_where_no_mail_can_go(self) -> None:
        await self.serve()
        for to, words in (("nobody@example.org", "nobody@example.org: "), ("x@far.example", "there is no relay")):
            await self.refused(words, "queue.change", verb="redirect", selection={}, to=to)
        self.assertEqual((await self.ask("queue.change", verb="redirect", selection={}, to="alice@example.org"))["done"], [])

    async def test_what_is_no_order_is_refused_in_words(self) -> None:
        [one] = await self.waiting("x@one.example")
        await self.refused("burn", "queue.change", verb="burn", selection={"id": one})
        for command in ("queue.change", "queue.select"):
            await self.refused("", command, verb="hold", selection={"colour": "blue"})
        self.assertEqual(await self.states(), {one: "deferred"})

        async def broken(order: Any, **more: Any) -> Any:
            raise StorageBroken("the disk is gone")

        self.patch(self.service._server.queue.verbs, "carry_out", broken)
        await self.refused("cannot be written: .*the disk is gone", "queue.change", verb="hold", selection={"id": one})

    async def test_the_status_has_figures_of_the_relay(self) -> None:
        await self.waiting("x@one.example")
        status = await self.ask("status")
        self.assertIn("relay", status)
        self.assertEqual((status["queue"]["depth"], status["listeners"][0]["service"]), (1, "mx"))
        self.assertEqual(status["steps"]["accepted"], 1)

    async def test_a_road_is_told_by_the_beginning_of_its_id(self) -> None:
        [one] = await self.waiting("x@one.example")
        self.assertIn("accepted", await self.steps(one[:10].lower()))
        await self.refused("ABCDEF", "explain", id="ABCDEF")
        await self.refused("", "explain")


class Route(AskedCase):
    async def asked(self, address: str, peer: str = "") -> dict[str, Any]:
        return await self.ask("route", address=address, **{"from": peer})

    async def test_it_says_each_step_and_each_end(self) -> None:
        await self.serve(RELAY)
        sales = await self.asked("Sales@example.org")
        self.assertEqual(
            [(hop["how"], hop["leads_to"]) for hop in sales["hops"]],
            [("alias", ["alice@example.org", "dora@elsewhere.example"]), ("account", []), ("elsewhere", [])],
        )
        local, remote = sales["ends"]
        wanted = {
            "kind": "local", "address": "alice@example.org", "mailbox": "alice@example.org", "folder": "",
            "if_there": False, "system_user": False,
        }  # fmt: skip
        self.assertEqual(local, wanted)
        self.assertEqual((remote["kind"], remote["domain"]), ("remote", "elsewhere.example"))
        self.assertEqual(remote["hosts"][0]["addresses"], ["127.0.0.1"])
        self.assertTrue(sales["accepted"], "an alias may lead to other hosts for anybody")
        [end] = (await self.asked("alice+lists@example.org"))["ends"]
        self.assertEqual((end["folder"], end["if_there"]), ("lists", True))
        self.assertEqual((await self.asked("postmaster"))["hops"][0]["how"], "own name")
        await self.refused("is not an address", "route", address="not an address")
        await self.refused("is not an address", "route")

    async def test_an_address_that_leads_to_no_address_is_refused_in_words(self) -> None:
        service = await self.serve()

        async def explain(address: Any) -> Any:
            raise AddressError("no such form")

        self.patch(service._in_force.policy.router, "explain", explain)
        await self.refused("alice@example.org: no such form", "route", address="alice@example.org")

    async def test_who_may_relay_is_told_for_an_address_and_for_a_network(self) -> None:
        await self.serve(RELAY)
        every = (
            ("", False, False), ("127.0.0.1", True, False), ("203.0.113.9", False, False), ("192.0.2.0/25", True, False),
            ("192.0.0.0/16", False, True), ("0.0.0.0/0", False, True), ("::1", False, False),
        )  # fmt: skip
        for peer, accepted, partly in every:
            answer = await self.asked("x@far.example", peer)
            self.assertEqual((answer["accepted"], answer["partly"], answer["from"]), (accepted, partly, peer))
            self.assertEqual("Relaying denied" in answer["reply"], not accepted, peer)
        self.assertEqual((await self.asked("alice@example.org"))["reply"], "250 2.1.5 OK")

    async def test_without_a_relay_nothing_leads_elsewhere(self) -> None:
        text = BASIC + '[relay]\nnetworks = ["127.0.0.0/8"]\n[domain."example.org".aliases]\nfar = "x@far.example"\n'
        await self.serve(text)
        for address in ("x@far.example", "far@example.org"):
            answer = await self.asked(address, "127.0.0.1")
            self.assertEqual((answer["accepted"], answer["reply"]), (False, "550 5.7.1 Relaying denied: there is no relay"))
            self.assertNotIn("hosts", answer["ends"][0])
        [end] = (await self.asked("nobody@example.org"))["ends"]
        self.assertEqual((end["kind"], end["reply"][:3]), ("refused", "550"))
        self.assertIn("why", end)

    async def test_a_host_that_cannot_be_found_is_a_fault_of_this_end(self) -> None:
        service = await self.serve(BASIC + '[relay]\nuse = "mx"\n')

        async def hosts_for(address: Any) -> Any:
            if address.local == "odd":
                raise AddressError("no such form")
            return SimpleNamespace(reply="556 5.1.10 No mail", note="a null MX")

        self.patch(service._server.remote, "hosts_for", hosts_for)
        [end] = (await self.asked("x@far.example"))["ends"]
        self.assertEqual(end["fault"], "556 5.1.10 No mail (a null MX)")
        [end] = (await self.asked("odd@far.example"))["ends"]
        self.assertEqual(end["fault"], "no such form")


class Lockouts(AskedCase):
    async def locked(self) -> None:
        service = await self.serve()
        lockout = service._server.logins.lockout
        for n in range(12):
            await lockout.failed("203.0.113.9", "alice@example.org", b"wrong %d" % n)
        await lockout.failed("203.0.113.10", "bob@example.org", b"x")

    async def subjects(self, command: str = "lockouts.list", **arguments: Any) -> set[str]:
        return {one["account"] or one["network"] for one in (await self.ask(command, **arguments))["entries"]}

    async def test_what_is_only_counted_is_shown_to_who_asks_for_all(self) -> None:
        await self.locked()
        self.assertEqual(await self.subjects(), {"alice@example.org"})
        self.assertIn("bob@example.org", await self.subjects(all=True))

    async def test_an_account_is_meant_however_it_is_written(self) -> None:
        await self.locked()
        self.assertEqual(await self.subjects(account="ALICE@Example.ORG"), {"alice@example.org"})
        self.assertEqual(await self.subjects(account="bob@example.org"), set())
        self.assertEqual(await self.subjects("lockouts.clear", account="Alice@example.org", by="a test"), {"alice@example.org"})
        self.assertEqual(await self.subjects(), set())

    async def test_an_answer_is_bounded_and_says_how_many_more_there_are(self) -> None:
        self.patch(lockouts, "ENTRIES_MOST", 1)
        await self.locked()
        answer = await self.ask("lockouts.list", all=True)
        self.assertEqual([one["account"] for one in answer["entries"]], ["alice@example.org"], "what is locked comes first")
        self.assertGreaterEqual(answer["more"], 1)
        self.assertEqual((await self.ask("lockouts.list"))["more"], 0)
