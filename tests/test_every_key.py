"""Every key of the configuration: a reload takes it up, or names it among what waits for a restart."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mailserver.assembly import reload
from mailserver.assembly.server import NEEDS_RESTART, SOCKET_KEYS
from mailserver.config import Configuration, Options, load
from mailserver.config.options import keys_of
from mailserver.plugins import catalogue
from mailserver.service import MailService
from tests.tls.authority import Authority

WHOLE = """
hostname = "mx.example.org"
data = "{work}/data"
[[listen]]
service = "submission"
endpoint = "tcp:0:interface=127.0.0.1"
tls = "implicit"
[[listen]]
service = "mx"
endpoint = "haproxy:tcp:0:interface=127.0.0.1"
[tls]
certificate = "{work}/server.pem"
key = "{work}/server.key"
[tls.name."other.example.org"]
certificate = "{work}/server.pem"
key = "{work}/server.key"
[authentication]
[lockout]
[submission]
[privacy]
[limits]
[accounts]
use = "file"
path = "{work}/accounts.toml"
[delivery]
use = "maildir"
path = "{work}/mail/{{user}}"
[relay]
use = "none"
[dns]
servers = ["127.0.0.1"]
[queue]
[pickup]
[log]
[domain."example.org"]
[[domain."example.org".pattern]]
match = "{{user}}.{{tag}}"
[[filter]]
use = "denylist"
[[filter]]
use = "denylist"
deadline = 5
"""

NOT_OURS = {
    "filter.use", "accounts.use",  # a component is found by it, and its options are made with it
    "listen.token_file",  # looked up at each request, in the configuration in force
    "traces.endpoint", "traces.detail", "traces.headers_file", "traces.ca_file", "traces.timeout",  # a command's of its own
    "web.certificate", "web.key", "web.imap", "web.pop3", "web.submission",  # where there is a web listener
    "web.mta_sts", "web.mta_sts_max_age", "web.mta_sts_hosts",
    "router.name",  # there is a name where there is a router
}  # fmt: skip


def tables(table: Any, name: str = "") -> Iterator[tuple[str, Options]]:
    """Each table of a configuration with its place; those of a component itself are its own business."""
    if isinstance(table, dict):
        for one in table.values():
            yield from tables(one, name)
    elif isinstance(table, tuple):
        for one in table:
            yield from tables(one, name)
    elif isinstance(table, Options):
        yield name, table
        for key in keys_of(type(table)):
            if key != "options":
                yield from tables(table.__dict__[key], f"{name}.{key}" if name else key)


def keys(configuration: Configuration) -> dict[str, set[tuple[int, str]]]:
    """The full name of each key, and where in this configuration it stands."""
    found: dict[str, set[tuple[int, str]]] = {}
    for name, table in tables(configuration):
        for key in keys_of(type(table)):
            if not (name == "" and isinstance(table.__dict__[key], Options | dict)):
                found.setdefault(f"{name}.{key}" if name else key, set()).add((id(table), key))
    return found


class EveryKey(TestCase):
    def setUp(self) -> None:
        self.work = Path(self.mktemp()).absolute()
        os.makedirs(self.work / "data")
        (self.work / "accounts.toml").write_text("")
        Authority().leaf("mx.example.org").write(str(self.work))
        self.catalogue = catalogue.discover()

    def configuration(self, text: str = WHOLE) -> Configuration:
        path = self.work / "mailserver.toml"
        path.write_text(text.format(work=self.work))
        return load(str(path), self.catalogue.options_of)

    def service(self, text: str = WHOLE) -> MailService:
        from twisted.internet import reactor

        path = str(self.work / "mailserver.toml")
        made = MailService(self.configuration(text), path=path, catalogue=self.catalogue, reactor=reactor)

        async def stop() -> None:
            await made._in_force.ports.stop_listening()
            await made._in_force.ports.say_goodbye()
            await made._in_force.policy.stop()
            made._server.logins.stop()

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        return made

    async def reload(self, made: MailService, text: str) -> dict[str, Any]:
        self.configuration(text)
        return await made._in_force.reload()

    async def test_a_reload_reads_each_key_or_names_it_as_waiting_for_a_restart(self) -> None:
        made = self.service()
        new = self.configuration()
        read: set[tuple[int, str]] = set()

        def noted(table: Options, name: str) -> Any:
            read.add((id(table), name))
            return super(Options, table).__getattribute__(name)

        self.patch(reload, "load", lambda *_: new)
        self.patch(Options, "__getattribute__", noted)
        await made._in_force.reload()
        places = keys(new)
        self.assertGreater(len(places), 90)
        unread = {name for name, here in places.items() if not here & read and not {name, name.split(".")[0]} & {*NEEDS_RESTART, *SOCKET_KEYS}}
        self.assertEqual(unread - NOT_OURS, set())

    async def test_what_waits_for_a_restart_is_named_until_the_file_says_again_what_the_server_runs_with(self) -> None:
        made = self.service()
        changed = (
            WHOLE.replace('"mx.example.org"', '"mx2.example.org"')
            .replace('{work}/data"', '{work}/data2"\nkeys = "{work}/keys"')
            .replace("[lockout]", '[lockout]\nwindow = 60')
            .replace("[authentication]", '[authentication]\nsocket = "{work}/auth.sock"\nsocket_group = "root"')
            .replace("mail/{{user}}", "mail2/{{user}}")
            .replace('use = "none"', 'use = "capture"\npath = "{work}/out"')
            .replace('["127.0.0.1"]', '["127.0.0.2"]')
            .replace("[queue]", '[queue]\nexpire = "9d"')
            .replace("[pickup]", '[pickup]\nusers = "all"\n[web]\nuser = "www"\nsocket = "{work}/web.sock"\nsocket_group = "root"')
            .replace("[log]", '[log]\nlevel = "warn"')
        )
        everything = sorted({*NEEDS_RESTART, *SOCKET_KEYS} - {"workers"})  # of which there is one value only
        for _ in range(2):
            self.assertEqual(sorted((await self.reload(made, changed))["needs_restart"]), everything)
        self.assertEqual((await self.reload(made, WHOLE))["needs_restart"], [])

    async def test_a_table_that_gets_its_present_name_needs_no_restart(self) -> None:
        users = WHOLE.replace("[pickup]", '[pickup]\nusers = "all"')
        made = self.service(users.replace("[pickup]", "[drop]"))
        self.assertEqual((await self.reload(made, users))["needs_restart"], [])
        self.assertEqual((await self.reload(made, WHOLE.replace("[pickup]", "[drop]")))["needs_restart"], ["pickup"])

    async def test_routes_and_what_the_relay_does_need_no_restart_but_its_kind_and_the_first_route_do(self) -> None:
        route = '[[route]]\ndomain = "partner.example"\nhost = "192.0.2.1"\nport = {port}\n[dns]'
        mx = WHOLE.replace('use = "none"', 'use = "mx"')
        made = self.service(mx)
        for text, keys in (
            (mx.replace("[dns]", route.replace("{port}", "26")), []),
            (mx.replace('use = "mx"\n', 'use = "mx"\nconnections = 7\ntls = "required"\n'), []),
            (mx.replace("[dns]", route.replace("{port}", "27")), []),
            (WHOLE.replace("[dns]", route.replace("{port}", "26")), ["relay", "route"]),
            (mx, []),
        ):
            self.assertEqual((await self.reload(made, text))["needs_restart"], keys, text)
            relay = made._server.relay
            assert relay is not None
            ports = [way.connect_settings.port for way in relay.routes.ways]
            self.assertEqual(ports[1:], [26] if "= 26" in text and not keys else [27] if "= 27" in text or keys else [])
        self.assertEqual(relay.connections.pool.limits.in_all, 500)

        without = self.service()
        self.assertEqual((await self.reload(without, WHOLE.replace("[dns]", route.replace("{port}", "26"))))["needs_restart"], ["route"])

    async def test_who_may_relay_needs_no_restart(self) -> None:
        made = self.service()
        networks = WHOLE.replace('use = "none"', 'use = "none"\nnetworks = ["192.0.2.0/24"]')
        self.assertEqual((await self.reload(made, networks))["needs_restart"], [])

    async def test_plain_numbers_of_what_outlives_a_reload_change_with_it(self) -> None:
        made = self.service()
        admission, room = made._server.admission, made._server.queue.room
        self.assertIsNone(admission.admit("192.0.2.1"))
        limits = (
            "[limits]\nconnections = 2\nconnections_per_network = 1\nstress_percent = 50\nminimum_free_bytes = 1000\n"
            "memory_bytes = 2000\nmemory_bytes_total = 3000\nreactor_seconds = 7"
        )
        threads = "[authentication]\nthreads = 5\nwaiting = 7\nremember = 9"
        await self.reload(made, WHOLE.replace("[limits]", limits).replace("[authentication]", threads))
        self.assertIsNotNone(admission.admit("192.0.2.1"))
        self.assertTrue(admission.stress)
        self.assertIsNone(admission.admit("192.0.2.2"))
        self.assertIsNotNone(admission.admit("192.0.2.3"))
        room._free_bytes = lambda _: 1500
        self.assertEqual((room.holds(400), room.holds(400)), (True, False))
        self.assertEqual(made._server.watchdog.seconds, 7)
        spool = made._server.spool
        self.assertEqual((spool.one_octets_most, spool.all_octets_most), (2000, 3000))
        active_queues = made._server.queue._runner.active_queues
        self.assertEqual([(active_queue.limits.window_octets, active_queue._memory.most) for active_queue in active_queues], [(3000, 3000)] * 2)
        logins = made._server.logins
        self.assertEqual((logins._threads._pool.max, logins._threads._most), (5, 12))
        self.assertEqual(logins.checks.remember_seconds, 9.0)
