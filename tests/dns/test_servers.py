"""Which server is asked, and /etc/resolv.conf."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.dns.servers import NameServer, ServerList, SystemSettings, read_resolv_conf
from mailserver.mail.dns_records import ServerAddress

A, B, C = (NameServer(ServerAddress(f"192.0.2.{n}")) for n in (1, 2, 3))


class Order(SynchronousTestCase):
    def test_the_first_is_asked_first(self) -> None:
        servers = ServerList([A, B])
        self.assertEqual([servers.order(0.0), servers.order(0.0)], [[A, B], [A, B]])

    def test_rotation_asks_each_first_in_turn(self) -> None:
        servers = ServerList([A, B, C], rotate=True)
        self.assertEqual({servers.order(0.0)[0] for _ in range(3)}, {A, B, C})

    def test_one_that_was_silent_twice_in_a_row_is_asked_last(self) -> None:
        servers = ServerList([A, B])
        self.assertFalse(servers.silent(A, 0.0))
        self.assertEqual(servers.order(0.0), [A, B])
        self.assertTrue(servers.silent(A, 0.0))
        self.assertFalse(servers.silent(A, 0.0), "it rests already")
        self.assertEqual((servers.order(1.0), servers.resting()), ([B, A], [A]))

    def test_an_answer_between_two_silences_means_that_it_lives(self) -> None:
        servers = ServerList([A, B])
        servers.silent(A, 0.0)
        self.assertFalse(servers.heard(A))
        servers.silent(A, 0.0)
        self.assertEqual(servers.order(0.0), [A, B])

    def test_every_half_minute_one_question_tries_it_first(self) -> None:
        servers = ServerList([A, B])
        servers.silent(A, 0.0)
        servers.silent(A, 0.0)
        self.assertEqual([servers.order(29.9), servers.order(30.0), servers.order(30.1)], [[B, A], [A, B], [B, A]])
        self.assertEqual(servers.order(60.0), [A, B])

    def test_one_that_answers_again_has_its_place_again(self) -> None:
        servers = ServerList([A, B])
        servers.silent(A, 0.0)
        servers.silent(A, 0.0)
        self.assertTrue(servers.heard(A))
        self.assertEqual((servers.order(0.0), servers.resting()), ([A, B], []))

    def test_all_are_asked_where_all_are_silent(self) -> None:
        servers = ServerList([A, B])
        for server in (A, A, B, B):
            servers.silent(server, 0.0)
        self.assertEqual(servers.order(1.0), [A, B])

    def test_a_server_of_a_former_list_is_forgotten(self) -> None:
        servers = ServerList([A])
        self.assertFalse(servers.silent(B, 0.0) or servers.silent(B, 0.0))
        self.assertEqual(servers.resting(), [])


class ResolvConf(SynchronousTestCase):
    def test_servers_and_options(self) -> None:
        found = read_resolv_conf(
            "# by hand\n; nameserver 192.0.2.9\nsearch example.org\nnameserver 192.0.2.1\nnameserver\t::1 \n"
            "options ndots:2 timeout:3 attempts:3 rotate\n"
        )
        self.assertEqual([str(server) for server in found.servers], ["192.0.2.1", "[::1]"])
        self.assertEqual((found.timeout_seconds, found.attempts, found.rotate), (3.0, 3, True))

    def test_a_server_on_this_host_is_trusted_and_with_trust_ad_every_one_is(self) -> None:
        text = "nameserver 127.0.0.53\nnameserver 192.0.2.1\n"
        self.assertEqual([server.trusted for server in read_resolv_conf(text).servers], [True, False])
        self.assertEqual(
            [server.trusted for server in read_resolv_conf(text + "options trust-ad").servers], [True, True]
        )

    def test_without_a_server_it_is_this_host(self) -> None:
        for text in ("", "nameserver\n", "nameserver example.org\n", "search example.org\n"):
            self.assertEqual(read_resolv_conf(text), SystemSettings())
        self.assertEqual([str(server) for server in SystemSettings().servers], ["127.0.0.1"])

    def test_numbers_are_kept_within_bounds_and_nonsense_is_passed_over(self) -> None:
        for text, timeout, attempts in (
            ("timeout:0 attempts:0", 1.0, 1),
            ("timeout:999 attempts:99", 30.0, 3),
            ("timeout:-1 attempts:x", 5.0, 2),
            ("timeout: attempts", 5.0, 2),
            ("timeout:" + "9" * 5000, 5.0, 2),
        ):
            found = read_resolv_conf("options " + text)
            self.assertEqual((found.timeout_seconds, found.attempts), (timeout, attempts), text[:40])

    def test_no_more_than_eight_servers_are_taken(self) -> None:
        text = "\n".join(f"nameserver 192.0.2.{n}" for n in range(20))
        self.assertEqual(len(read_resolv_conf(text).servers), 8)
