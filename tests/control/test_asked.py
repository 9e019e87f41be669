"""The control socket's commands, asked of a whole server: the queue, the routes, the roads, the lockouts."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from zope.interface import implementer

from mailserver.config import Options
from mailserver.control import lockouts, queue
from mailserver.control.client import CommandRefused
from mailserver.interfaces import CannotTell, ICommands, IComponentFactory, ISenderFilter
from mailserver.interfaces.components import Argument, CannotDo, ComponentCommand
from mailserver.mail.address import AddressError
from mailserver.mail.answers import Pass
from mailserver.mail.faults import StorageBroken
from mailserver.relay.security import OverrideKind
from mailserver.testing.records import MemoryRecords
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
    async def refused(self, words: str, command: str, /, **arguments: Any) -> None:
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
        while set((await self.states()).values()) != {"deferred"}:  # and nobody is at it any more
            pass
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

    async def test_what_cannot_be_told_where_it_leads_is_not_redirected(self) -> None:
        [one] = await self.waiting("x@one.example")
        for error in (AddressError("no such form"), CannotTell("the directory is down")):

            async def route(address: Any, error: Exception = error) -> Any:
                raise error

            self.patch(self.service._in_force.policy.router, "route", route)
            await self.refused(f"alice@example.org: .*{error}", "queue.change", verb="redirect", selection={"id": one}, to="alice@example.org")
        self.assertEqual(await self.states(), {one: "deferred"})

    async def test_a_relay_that_cannot_forgive_keeps_no_mail_from_being_tried(self) -> None:
        [one] = await self.waiting("x@one.example")

        def forgive() -> None:
            raise CannotTell("not now")

        self.patch(self.service._server.remote, "forgive", forgive)
        await self.change("retry", one)
        await self.until(lambda: self.service._server.steps.counts["deferred"] == 2, "it was tried again")
        await self.until(lambda: "is not forgotten: not now" in self.log(), "it is told")

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

    async def test_they_are_of_the_relay_and_of_no_other_component_that_counts(self) -> None:
        service = await self.serve()
        described = service._server.register.described()
        for one in ({"kind": "filter", "counts": {"seen": 1}}, {"kind": "relay"}, {"kind": "relay", "counts": {"sent": 2}}):
            known = {**described[0], **one} if "counts" in one else {k: v for k, v in {**described[0], **one}.items() if k != "counts"}
            self.patch(service._server.register, "described", lambda known=known: [known])
            self.assertEqual((await self.ask("status")).get("relay"), {"sent": 2} if one.get("counts") == {"sent": 2} else None, one)

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


@implementer(ISenderFilter, ICommands)
class Forgetful:
    """A filter that can be told to forget."""

    async def judge_sender(self, envelope: Any) -> Any:
        return Pass()

    def commands(self) -> Sequence[ComponentCommand]:
        what = Argument("what", "what to forget", choices=("all", "nothing"))
        return [ComponentCommand("forget", "forget it", self.forget, (what,))]

    async def forget(self, what: str) -> list[str]:
        if what == "nothing":
            raise CannotDo("there is nothing")
        return [f"forgot {what}"]


@implementer(IComponentFactory)
class ForgetfulFactory:
    name = "forgetful"
    summary = "Forgets."
    api_version = "1.0"
    provides = ISenderFilter
    options = Options

    def build(self, options: Any, services: Any) -> Forgetful:
        return Forgetful()


class Components(AskedCase):
    async def run_command(self, name: str, command: str, arguments: Any) -> Any:
        return (await self.ask("component.run", name=name, command=command, arguments=arguments))["answer"]

    async def test_what_is_kept_of_a_user_follows_him_and_others_keep_theirs(self) -> None:
        filters = "".join([f'[[filter]]\nuse = "{use}"\n' for use in ("lists", "contacts", "subaddresses", "scores", "bayes")])
        await self.serve(BASIC + filters)
        users = [f"{one}@example.org" for one in ("alice", "bob", "carol")]
        for user in users:
            await self.run_command("lists", "add", {"colour": "white", "entry": "friend.example", "scope": user})
            await self.run_command("scores", "set", {"scope": user, "junk": "3"})
            await self.run_command("subaddresses", "close", {"address": user.replace("@", "+shop@")})

        async def kept(user: str) -> dict[str, int]:
            answer = await self.ask("component.follow", verb="kept", accounts={user: user})
            self.assertEqual((len(answer["followed"]), answer["failed"]), (5, {}))
            return dict(answer["kept"])

        whole = {f"the filter {name}": 1 for name in ("lists", "scores", "subaddresses")}
        renamed = {"alice@example.org": "smith@example.org"}
        for verb in ("begin", "complete"):
            answer = await self.ask("component.follow", verb=verb, accounts=renamed)
            self.assertEqual((len(answer["followed"]), answer["failed"]), (5, {}))
        self.assertEqual([await kept(one) for one in ("alice@example.org", "smith@example.org", *users[1:])], [{}, whole, whole, whole])
        rows = await self.run_command("lists", "show", {})
        self.assertEqual([row["scope"] for row in rows], ["bob@example.org", "carol@example.org", "smith@example.org"])
        await self.ask("component.follow", verb="removed", accounts={"bob@example.org": "bob@example.org"})
        self.assertEqual([await kept(one) for one in users], [{}, {}, whole])
        for arguments in ({}, {"verb": "begin"}, {"verb": "x", "accounts": {}}, {"verb": "kept", "accounts": {"a@b.example": 1}}):
            await self.refused("no rename and no removal", "component.follow", **arguments)

    async def test_one_obeys_the_commands_that_it_offers_and_no_others(self) -> None:
        await self.serve(BASIC + '[[filter]]\nuse = "forgetful"\n[[filter]]\nuse = "denylist"\n', components=[ForgetfulFactory()])
        described = await self.ask("component.commands", name="forgetful")
        self.assertEqual((described["kind"], [one["name"] for one in described["commands"]]), ("filter", ["forget"]))
        self.assertEqual(await self.ask("component.commands", name="denylist"), {"kind": "filter", "commands": []})
        self.assertEqual(await self.ask("component.commands", name="nobody"), {"kind": "", "commands": []})
        self.assertEqual(await self.run_command("forgetful", "forget", {"what": "all"}), ["forgot all"])
        for name, command, given, words in (
            ("forgetful", "forget", {"what": "nothing"}, "there is nothing"),
            ("forgetful", "remember", {}, "no component 'forgetful' with a command 'remember'"),
            ("denylist", "forget", {"what": "all"}, "no component 'denylist'"),
            ("lists", "add", {}, "no component 'lists' with a command 'add'; a reload brings what was added"),
            ("forgetful", "forget", ["all"], "no component"),
        ):
            await self.refused(words, "component.run", name=name, command=command, arguments=given)
        found = {one["name"] for one in (await self.ask("components"))["components"]}
        self.assertGreaterEqual(found, {"forgetful", "denylist"})

    async def test_two_of_one_name_are_told_apart_by_nobody(self) -> None:
        service = await self.serve(BASIC + '[[filter]]\nuse = "forgetful"\n', components=[ForgetfulFactory()])
        [own] = [one for one in service._server.register.running() if one.name == "forgetful"]
        other = SimpleNamespace(name="forgetful", kind="relay", commands=own.commands)
        self.patch(service._server.register, "running", lambda: [own, other])
        await self.refused("'forgetful' is the name of a filter and of a relay", "component.commands", name="forgetful")


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


class TLS(AskedCase):
    async def test_what_is_said_of_a_hosts_tls_counts_at_once_and_stands_in_the_log(self) -> None:
        self.service = await self.serve(RELAY)
        found = await self.ask("route.tls", address="x@one.example")
        (host,) = found["hosts"]
        self.assertEqual((found["domain"], host["demand"]["mode"]), ("127.0.0.1", "opportunistic"))
        added = await self.ask("tls-override.add", domain="127.0.0.1.example", kind="require", seconds=60, by="a test")
        self.assertEqual((await self.ask("tls-override.list"))["overrides"], [added])
        server = self.service._server
        self.assertEqual(server.steps.counts["tls_override"], 1)
        self.assertIs(server.relay.tls_override("127.0.0.1.example").kind, OverrideKind.REQUIRE)
        await self.ask("tls-override.remove", domain="127.0.0.1.example", by="a test")
        self.assertEqual(server.steps.counts["tls_override_ended"], 1)
        await self.refused("no override", "tls-override.remove", domain="one.example")
        await self.refused("for how long", "tls-override.add", domain="one.example", kind="require")
        await self.refused("none of", "tls-override.add", domain="one.example", kind="x", seconds=60)
        await self.refused("not an address", "route.tls", address="nobody")

    async def test_records_that_fail_refuse_and_change_nothing(self) -> None:
        self.service = await self.serve(RELAY)
        overrides = self.service._server.tls_overrides
        overrides._records = MemoryRecords()
        overrides._records.failing.add("put")
        await self.refused("", "tls-override.add", domain="one.example", kind="require", seconds=60)
        self.assertIsNone(overrides.find("one.example"))

    async def test_without_a_relay_there_is_nothing_to_tell(self) -> None:
        self.service = await self.serve(BASIC)
        await self.refused("no relay of ours", "route.tls", address="x@one.example")
