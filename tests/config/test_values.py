"""What people may write for sizes, times, networks, names and endpoints."""

from __future__ import annotations

import ipaddress

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import check_options
from mailserver.config.endpoints import checked_endpoint, split_endpoint
from mailserver.config.options import Options
from mailserver.config.values import (
    FilePath,
    domain_key,
    domain_name,
    host_name,
    mail_address,
    network,
    octets,
    seconds,
)
from mailserver.mail.address import Address


class Sizes(SynchronousTestCase):
    def test_a_count_or_a_number_with_its_unit(self) -> None:
        sizes = {
            "50M": 52428800,
            "512K": 524288,
            "2G": 2**31,
            "1T": 2**40,
            "1.5K": 1536,
            "7": 7,
            "10 MiB": 10485760,
            "3kB": 3072,
        }
        self.assertEqual({text: octets(text) for text in sizes}, sizes)
        self.assertEqual(octets(0), 0)

    def test_anything_else_is_no_size(self) -> None:
        for wrong in ("50 potatoes", "-1", -1, "1e9", "", "M", True, 1.5, None, "٥M", "9" * 30):
            self.assertRaises(ValueError, octets, wrong)


class Times(SynchronousTestCase):
    def test_seconds_or_numbers_with_units(self) -> None:
        times = {
            "30s": 30,
            "5m": 300,
            "1h30m": 5400,
            "5d": 432000,
            "2w": 1209600,
            "250ms": 0.25,
            "1.5h": 5400,
            "1h 5m": 3900,
        }
        self.assertEqual({text: seconds(text) for text in times}, times)
        self.assertEqual((seconds(0), seconds(2.5)), (0.0, 2.5))

    def test_anything_else_is_no_time(self) -> None:
        for wrong in ("5", "5 min", "m5", "-5m", -1, "", True, None, float("inf"), float("nan"), [5]):
            self.assertRaises(ValueError, seconds, wrong)


class Names(SynchronousTestCase):
    def test_domains_become_what_look_ups_compare(self) -> None:
        self.assertEqual(domain_name("Example.ORG"), "example.org")
        self.assertEqual(domain_name("Bücher.example"), "xn--bcher-kva.example")
        self.assertEqual(domain_name("[192.0.2.1]"), "[192.0.2.1]")
        self.assertEqual(domain_key("*.Example.org"), "*.example.org")

    def test_what_is_no_domain_is_refused(self) -> None:
        for wrong in ("", "a..b", "-a.example", "a b", "a" * 64 + ".example", "*"):
            self.assertRaises(ValueError, domain_name, wrong)
        for wrong in ("*.", "*.*.example", "*.[192.0.2.1]"):
            self.assertRaises(ValueError, domain_key, wrong)

    def test_a_host_name_is_no_address(self) -> None:
        self.assertEqual(host_name("MX.example.org"), "mx.example.org")
        for wrong in ("[192.0.2.1]", "192.0.2.1"):
            self.assertRaises(ValueError, host_name, wrong)

    def test_addresses_keep_their_local_part(self) -> None:
        self.assertEqual(mail_address("Alice@Example.ORG"), Address("Alice", "example.org"))
        self.assertEqual(mail_address("jürgen@exämple.org"), Address("jürgen", "xn--exmple-cua.org"))
        for wrong in ("alice", "@example.org", "", 7, "a b@example.org"):
            self.assertRaises(ValueError, mail_address, wrong)

    def test_networks_of_both_families_and_single_addresses(self) -> None:
        self.assertEqual(network("192.0.2.0/24"), ipaddress.ip_network("192.0.2.0/24"))
        self.assertEqual(network("::1"), ipaddress.ip_network("::1/128"))
        for wrong in ("192.0.2.1/24", "localhost", 5, True, "192.0.2.0/33"):
            self.assertRaises(ValueError, network, wrong)


class Paths(SynchronousTestCase):
    class Files(Options):
        path: FilePath = "accounts.toml"

    def path(self, **table: str) -> object:
        return vars(check_options(self.Files, table, "/etc/mail"))["path"]

    def test_a_relative_path_counts_from_the_files_folder_also_as_a_default(self) -> None:
        self.assertEqual(self.path(path="keys/a.pem"), "/etc/mail/keys/a.pem")
        self.assertEqual(self.path(path="/var/x"), "/var/x")
        self.assertEqual(self.path(path="../x"), "/etc/x")
        self.assertEqual(self.path(), "/etc/mail/accounts.toml")

    def test_a_template_stays(self) -> None:
        self.assertEqual(self.path(path="{data}/mail/{user}"), "{data}/mail/{user}")


class Endpoints(SynchronousTestCase):
    def test_what_the_server_documents_is_taken(self) -> None:
        for text in (
            "tcp:25",
            "tcp:0",
            "tcp:2525:interface=127.0.0.1",
            r"tcp:25:interface=\:\:1",
            "tcp:port=25:backlog=128",
            "unix:/run/mail/lmtp.sock:mode=660",
            "unix:/" + "x" * 106,
            "systemd:domain=INET:index=0",
            "systemd:domain=INET6:name=mx",
            "haproxy:tcp:25",
            "haproxy:unix:/run/mail/lmtp.sock",
            "haproxy:systemd:domain=INET:index=0",
            "fd:3",
            "onion:25",
        ):
            self.assertEqual(checked_endpoint(text), text)

    def test_faults_are_told(self) -> None:
        for text, words in {
            "": "must be an endpoint",
            "25": "must be an endpoint",
            "tcp": "not a port",
            "tcp:smtp": "not a port",
            "tcp:65536": "not a port",
            "tcp:25:iface=::1": "has no 'iface'",
            "tcp:25:interface=a b": "not an interface",
            "unix:": "needs a path",
            "unix:/" + "x" * 107: "107 octets",
            "unix:/x:mode=rw": "not a mode",
            "ssl:465": 'tls = "implicit"',
            "haproxy:tcp:x": "not a port",
            "haproxy:25": "must be an endpoint",
            "haproxy:haproxy:tcp:25": "stands once",
            "haproxy:": "must be an endpoint",
            "tcp:25\\": "backslash",
            "tcp:25:a=b=c": "second '='",
        }.items():
            with self.assertRaises(ValueError, msg=text) as caught:
                checked_endpoint(text)
            self.assertIn(words, str(caught.exception))

    def test_a_backslash_takes_the_meaning_away(self) -> None:
        self.assertEqual(split_endpoint(r"unix:/a\:b\\c:mode=6\=0"), ("unix", ["/a:b\\c"], {"mode": "6=0"}))
