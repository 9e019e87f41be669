"""What `[[route]]` may say: each fault with its line and key."""

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config.route_table import next_hop_of, next_hop_of_relay
from mailserver.plugins.catalogue import discover
from tests.config.support import LEAST, faults, parsed

MX = '[relay]\nuse = "mx"\nsource_ipv4 = "192.0.2.7"\nprefer = "ipv6"\ntls = "required"\n'
SMARTHOST = (
    '[relay]\nuse = "smarthost"\nhost = "smart.example"\nport = 587\ntls = "verified"\n'
    'username = "us"\npassword_file = "us.password"\n'
)
NONE = '[relay]\nuse = "none"\n'


class Faults(SynchronousTestCase):
    def assertFault(self, more, *expected, relay=MX):
        self.assertEqual(faults(LEAST + relay + more, discover().options_of), list(expected))

    def test_a_route_says_for_whom_and_where(self):
        for keys, said in (
            ("", "needs a domain or a sender: what holds for all mail stands in [relay]"),
            ('domain = "a.example"\nuse = "smarthost"', 'use = "smarthost" needs a host'),
            ('domain = "a.example"\nuse = "mx"\nhost = "h.example"', 'host is for a host, and use = "mx" has none of its own'),
            ('domain = "a.example"\nuse = "none"\nport = 26', 'port has no effect with use = "none"'),
            ('domain = "a.example"\nreason = "no"', 'reason is for use = "none"'),
            ('domain = "a.example"\nlook_up_mx = true', "look_up_mx needs a host"),
            ('domain = "a.example"\nwarn = "2d"\nexpire = "1d"', "warn is later than expire, so that nobody would ever be warned"),
            (
                'domain = "a.example"\nusername = "x"\npassword_file = "y"',
                'a login and implicit_tls are for a host, and [relay] use = "mx" has none of its own',
            ),
            (
                'domain = "a.example"\nhost = "h.example"\nusername = "x"\npassword_file = "y"',
                'a login and implicit_tls need tls = "verified" (or "required", which believes any certificate)',
            ),
        ):
            self.assertFault(f"[[route]]\n{keys}\n", f"11 route[0]: {said}")

    def test_each_key_has_its_own_line(self):
        for key, said in (
            ('domain = "no domain"', "domain: 'no domain' is not a domain: not a domain name"),
            ('domain = ["a.example", "A.example"]', "domain: a.example is there twice"),
            ('domain = 5', "domain: must be a list"),
            ('sender = "a@"', "sender: 'a@' is not an address: not a domain name"),
            ('use = "lmtp"', "use: must be one of: mx, smarthost, none"),
            ('retry = []', "retry: must have at least 1 of them"),
            ('reason = "nö"', "reason: must be at most 200 printable ASCII characters: it stands in an SMTP reply"),
            ('source_ipv4 = "::1"', "source_ipv4: '::1' is no IPv4 address"),
            ('hots = "h.example"', "hots: is not a key that is known here; did you mean 'host'?"),
        ):
            found = faults(LEAST + MX + f"[[route]]\nname = \"x\"\n{key}\n", discover().options_of)
            self.assertIn(f"13 route[0].{said}", found)

    def test_two_routes_for_the_same_mail_contradict_each_other(self):
        self.assertFault(
            '[[route]]\ndomain = ["a.example", ".b.example"]\ntls = "none"\n'
            '[[route]]\ntls = "none"\ndomain = ["c.example", "*.B.example"]\n'
            '[[route]]\nsender = "Ann@a.example"\nuse = "mx"\n[[route]]\nuse = "mx"\nsender = ["ann@A.example"]\n'
            '[[route]]\ndomain = "a.example"\nsender = "ann@a.example"\n',
            '16 route[1].domain: domain "*.b.example" has a route already, route[0] in line 11',
            '22 route[3].sender: sender "ann@a.example" has a route already, route[2] in line 17',
        )

    def test_a_route_without_a_host_needs_a_way_of_the_relay(self):
        needs = '8 route[0]: needs a host, or use = "mx": [relay] has no way of its own'
        self.assertFault('[[route]]\ndomain = "a.example"\n', needs, relay=NONE)
        self.assertFault('[[route]]\ndomain = "a.example"\nuse = "mx"\n', relay=NONE)
        self.assertFault('[[route]]\ndomain = "a.example"\nuse = "none"\nreason = "Not from here"\n', relay=NONE)

    def test_a_log_in_of_the_relay_keeps_its_tls(self):
        said = 'a login and implicit_tls need tls = "verified" (or "required", which believes any certificate)'
        self.assertFault('[[route]]\ndomain = "a.example"\ntls = "none"\n', f"13 route[0]: {said}", relay=SMARTHOST)

    def test_a_relay_of_a_plugin_knows_no_routes(self):
        self.assertFault(
            '[[route]]\ndomain = "a.example"\nuse = "mx"\n',
            '9 route[0]: needs [relay] use = "mx", "smarthost" or "none": "capture" knows no routes',
            relay='[relay]\nuse = "capture"\npath = "/tmp/caught"\n',
        )


class Inheritance(SynchronousTestCase):
    def hop(self, relay, route):
        made = parsed(f"{LEAST}{relay}[[route]]\n{route}\n", discover().options_of)
        return next_hop_of(made.route[0], next_hop_of_relay(made.relay.use, made.relay.options))

    def test_without_a_host_all_that_is_not_said_is_as_in_relay(self):
        hop = self.hop(SMARTHOST, 'domain = "a.example"\nport = 26')
        self.assertEqual((hop.host, hop.port, hop.tls, hop.username), ("smart.example", 26, "verified", "us"))
        hop = self.hop(MX, 'domain = "a.example"\ntls = "none"')
        self.assertEqual((hop.host, hop.tls, hop.source_ipv4), (None, "none", "192.0.2.7"))

    def test_a_host_of_its_own_has_nothing_of_relay_but_our_addresses(self):
        hop = self.hop(SMARTHOST + 'source_ipv6 = "2001:db8::7"\n', 'domain = "a.example"\nhost = "h.example"')
        self.assertEqual((hop.host, hop.port, hop.tls, hop.username, hop.password_file), ("h.example", 25, "opportunistic", "", None))
        self.assertEqual(hop.source_ipv6, "2001:db8::7")
        hop = self.hop(MX, 'domain = "a.example"\nhost = "h.example"')
        self.assertEqual((hop.tls, hop.prefer, hop.source_ipv4), ("opportunistic", "ipv6", "192.0.2.7"))

    def test_a_log_in_comes_as_a_whole(self):
        hop = self.hop(SMARTHOST, 'sender = "bob@a.example"\nusername = "bob"\npassword_file = "bob.password"')
        self.assertEqual((hop.host, hop.username, hop.password_file), ("smart.example", "bob", "/etc/mail/bob.password"))
        said = "username needs a password_file or oauth, and each of them needs a username"
        made = faults(f'{LEAST}{SMARTHOST}[[route]]\nsender = "bob@a.example"\nusername = "bob"\n', discover().options_of)
        self.assertEqual(made, [f"13 route[0]: {said}"])
