"""docs/relay.md and the program in it: they are the same, and it works."""

import functools
import io
import sys
from types import SimpleNamespace

from twisted.internet import reactor

from mailserver.config.reading import parse
from mailserver.plugins.catalogue import discover
from mailserver.relay.components import MXOptions, SmarthostOptions
from mailserver.relay.delivery import ConnectSettings
from mailserver.relay.library import smarthost_relay
from mailserver.testing import FakeResolver
from tests.documents import blocks, example_as_shown, load_example, page_text
from tests.relay.test_sockets import SocketCase

EXAMPLE, PAGE = "relay_send", page_text("relay.md")


class Resolver(FakeResolver):
    async def start(self):
        """Nothing to open."""

    async def stop(self):
        """Nothing to close."""


class Document(SocketCase):
    def test_the_page_shows_the_example_as_it_is(self):
        self.assertIn(example_as_shown(EXAMPLE), PAGE)

    def test_the_keys_that_the_page_names_exist(self):
        for key in (
            "port",
            "tls",
            "ip",
            "recipients",
            "connections",
            "connections_per_host",
            "probe",
            "connect_timeout",
        ):
            self.assertIn(key, MXOptions.model_fields)
            self.assertIn(f"`{key}", PAGE.replace("tls  =", "`tls").replace("port =", "`port"), key)
        self.assertIn("look_up_mx", SmarthostOptions.model_fields)

    def test_every_configuration_on_the_page_loads(self):
        tables = blocks(PAGE, "toml")
        self.assertGreater(len(tables), 5)
        top = 'hostname = "mx.example.org"\ndata = "data"\n[[listen]]\nservice = "mx"\nendpoint = "tcp:2525"\n'
        for table in tables:
            configuration = parse(top + table, file="mailserver.toml", directory="/etc", options_of=discover().options_of)
            self.assertIn(configuration.relay.use, ("mx", "smarthost"))

    async def test_the_example_sends(self):
        example = load_example(EXAMPLE)
        zones = {"example.org": {"MX": ["10 sink.example"]}, "sink.example": {"A": ["127.0.0.1"]}}
        example.Resolver = lambda reactor: Resolver(zones)
        example.mx_relay = functools.partial(example.mx_relay, connect_settings=ConnectSettings(port=self.port))
        said = io.StringIO()
        self.patch(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"Subject: x\n\ntext\n")))
        self.patch(sys, "stdout", said)
        await example.main(reactor, "ann@client.example", "bob@example.org", "carol@[127.0.0.1]", "dan@unknown.example")
        self.assertEqual([message for _, message in self.sink.messages], [b"Subject: x\r\n\r\ntext\r\n"] * 2)
        words = [line.split("(")[0] for line in said.getvalue().splitlines()]
        self.assertEqual(
            words, ["bob@example.org Delivered", "carol@[127.0.0.1] Delivered", "dan@unknown.example Failed"]
        )

    async def test_a_smarthost_relay_says_what_it_is_doing(self):
        relay = smarthost_relay(
            reactor=reactor, hostname="us.example", host="127.0.0.1", connect_settings=ConnectSettings(port=self.port)
        )
        await relay.start()
        await self.deliver(relay)
        self.assertRegex(
            repr(relay), r"^<Relay: <Pool: 0 waiting, 1 connections \(1 idle\) to 1 destinations, 1 opened, 0% hits>>"
        )
        await relay.stop()
