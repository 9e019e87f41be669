"""What the configuration makes of ``[relay]``."""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver.config import ConfigurationError
from mailserver.config.next_hop import next_host_name
from mailserver.interfaces import IComponent, IConcurrentDelivery, ICounting, IForgiving
from mailserver.plugins.catalogue import PluginError, build_component, discover
from mailserver.relay.components import MXFactory, SmarthostFactory, SmarthostOptions
from mailserver.relay.operators import PaceLimit
from mailserver.relay.pool import PoolLimits
from mailserver.testing import FilterCase

OAUTH = {
    "host": "127.0.0.1", "tls": "verified", "username": "us", "oauth": "https://issuer.example", "oauth_client": "id", "oauth_scopes": ["x"],
}  # fmt: skip

class Components(FilterCase):
    def test_both_are_deliveries_with_a_life(self):
        for relay in (self.build(MXFactory()), self.build(SmarthostFactory(), host="127.0.0.1")):
            verifyObject(IConcurrentDelivery, relay)
            verifyObject(IComponent, relay)
            verifyObject(ICounting, relay)
            verifyObject(IForgiving, relay)
            self.assertTrue(relay.stores)

    def test_the_options_reach_the_pool(self):
        relay = self.build(
            SmarthostFactory(),
            host="Smart.Example",
            connections=7,
            connections_per_host=3,
            messages_per_connection=11,
            connection_age="1m",
            connection_idle="2s",
            probe="5s",
        )
        expected = PoolLimits(per_destination=3, in_all=7, messages=11, age_seconds=60, idle_seconds=2, probe_seconds=5)
        self.assertEqual(relay.connections.pool.limits, expected)

    def test_paces_are_those_of_the_options_and_a_reload_changes_them(self):
        options = {
            "host": "smart.example", "connections_per_host": 7, "messages_per_minute": 90,
            "pace": [{"name": "google", "messages_per_minute": 30}, {"name": "ours", "hosts": ["*.Example.NET"], "connections": 2}],
        }  # fmt: skip
        relay = self.build(SmarthostFactory(), **options)
        table = relay.connections.pool.paces.table
        self.assertEqual(table.of("aspmx.l.google.com"), ("google", PaceLimit(7, 1000, 30), True))
        self.assertEqual(table.of("mx.example.net"), ("ours", PaceLimit(2, 1000, 90), True))
        self.assertEqual(table.of("smart.example"), ("smart.example", PaceLimit(7, 1000, 90), False))
        relay.configure("smarthost", SmarthostOptions(host="smart.example"), ())
        self.assertEqual(relay.connections.pool.paces.table.of("aspmx.l.google.com"), ("google", PaceLimit(20, 1000, 0), True))

    def test_each_family_has_the_source_that_is_configured_and_no_other(self):
        for sources in ({}, {"source_ipv4": "192.0.2.1"}, {"source_ipv6": "2001:db8::1"}, {"source_ipv4": "192.0.2.1", "source_ipv6": "2001:db8::1"}):
            connect_settings = self.build(SmarthostFactory(), host="smart.example", **sources).routes.default.connect_settings
            self.assertEqual((connect_settings.source_ipv4, connect_settings.source_ipv6), (sources.get("source_ipv4", ""), sources.get("source_ipv6", "")))

    def test_faults_are_told_in_sentences(self):
        for options, words in (
            ({}, "host: is missing"),
            ({"host": "no host"}, "is not a domain"),
            ({"host": "127.0.0.1", "pace": [{"name": "nobody"}]}, "pace 'nobody' names no hosts, and none are known by that name"),
            ({"host": "127.0.0.1", "pace": [{"name": "google"}, {"name": "google"}]}, "two of pace are called 'google'"),
            ({"host": "127.0.0.1", "pace": [{"name": "a b"}]}, "pace[0].name"),
            ({"host": "127.0.0.1", "pace": [{"name": "x", "hosts": ["a b"]}]}, "is not a domain"),
            ({"host": "127.0.0.1", "pace": [{"name": "google", "connections": 0}]}, "must be at least 1"),
            ({"host": "127.0.0.1", "port": 0}, "port: must be at least 1"),
            ({"host": "127.0.0.1", "tls": "yes"}, "tls: must be one of: none, opportunistic, required, verified"),
            ({"host": "127.0.0.1", "source_ipv4": "::1"}, "source_ipv4: '::1' is no IPv4 address"),
            ({"host": "127.0.0.1", "username": "us"}, "username needs a password_file or oauth, and each of them needs a username"),
            ({"host": "127.0.0.1", "password_file": "/x"}, "username needs a password_file or oauth, and each of them needs a username"),
            ({"host": "127.0.0.1", "username": "us", "password_file": "/x"}, 'a login and implicit_tls need tls = "verified"'),
            ({"host": "127.0.0.1", "implicit_tls": True}, 'a login and implicit_tls need tls = "verified"'),
            ({"host": "127.0.0.1", "mechanisms": ["NTLM"]}, "mechanisms[0]: must be one of: OAUTHBEARER, XOAUTH2, SCRAM-SHA-256-PLUS, SCRAM-SHA-256, PLAIN"),
            ({**OAUTH, "password_file": "/x"}, "two ways to log in"),
            ({**OAUTH, "username": ""}, "each of them needs a username"),
            ({**OAUTH, "tls": "opportunistic"}, 'a login and implicit_tls need tls = "verified"'),
            ({**OAUTH, "oauth_scopes": []}, "oauth needs oauth_client and oauth_scopes"),
            ({**OAUTH, "oauth_client": ""}, "oauth needs oauth_client and oauth_scopes"),
            ({**OAUTH, "oauth_flow": "client"}, "needs an oauth_secret_file"),
            ({**OAUTH, "mechanisms": ["PLAIN"]}, "mechanisms leaves none for oauth"),
            ({**OAUTH, "oauth": "http://issuer.example"}, "oauth: must begin with https://"),
            ({**OAUTH, "oauth": "https://me@issuer.example"}, "oauth: must be a URL with a host, without a user"),
            ({"host": "127.0.0.1", "oauth_client": "x"}, "oauth_client, oauth_scopes and oauth_secret_file need oauth"),
            ({"host": "127.0.0.1", "probe": 0}, "probe: must be more than 0"),
        ):
            with self.assertRaises(ConfigurationError) as caught:
                self.build(SmarthostFactory(), **options)
            self.assertIn(words, str(caught.exception))

    def test_exchangers_need_a_resolver(self):
        self.resolver = None
        with self.assertRaisesRegex(PluginError, "without a resolver"):
            self.build(MXFactory())

    def test_they_are_found_by_name(self):
        for name in ("mx", "smarthost"):
            factory = discover().factory("relay", name)
            options = factory.options(**({"host": "127.0.0.1"} if name == "smarthost" else {}))
            self.assertTrue(IConcurrentDelivery.providedBy(build_component(factory, options, self.services)))


class Names(SynchronousTestCase):
    def test_a_smarthost_is_a_name_or_a_number(self):
        for text, name in (
            ("Mail.Example", "mail.example"),
            ("[192.0.2.1]", "192.0.2.1"),
            ("192.0.2.1", "192.0.2.1"),
            ("[IPv6:2001:DB8::1]", "2001:db8::1"),
            ("::1", "::1"),
        ):
            self.assertEqual(next_host_name(text), name)
        for text in ("", "1.2.3", "a b", "[x]"):
            self.assertRaises(ValueError, next_host_name, text)
