"""Which way mail takes: by its recipient's domain first, then by its sender."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.route_map import ANY, RouteMap, RouteRule, clashes

WAYS = (
    RouteRule(("partner.example",)),
    RouteRule(("*.example.org",)),
    RouteRule(("*.deep.example.org",)),
    RouteRule(("partner.example",), ("alice@example.net",)),
    RouteRule(("partner.example",), ("*.example.net",)),
    RouteRule((), ("alice@example.net", "bob@example.net")),
    RouteRule((), ("example.net",)),
    RouteRule((), ("<>",)),
)


class Order(SynchronousTestCase):
    def assertWay(self, sender, recipient, way):
        ways = RouteMap("usual", [(rule, n) for n, rule in enumerate(WAYS)])
        found = ways.route_for(None if sender is None else Address.parse(sender), Address.parse(recipient, utf8=True))
        self.assertEqual(found, way, f"{sender} to {recipient}")

    def test_the_recipients_domain_counts_before_the_sender(self):
        for sender, recipient, way in (
            ("x@y.example", "u@partner.example", 0),
            ("x@y.example", "u@PARTNER.example", 0),
            ("alice@example.net", "u@partner.example", 3),
            ("ALICE@Example.Net", "u@partner.example", 3),
            ("carol@example.net", "u@partner.example", 0),
            ("carol@sub.example.net", "u@partner.example", 4),
            ("alice@example.net", "u@a.example.org", 1),
            ("alice@example.net", "u@elsewhere.example", 5),
            ("bob@example.net", "u@elsewhere.example", 5),
            ("carol@example.net", "u@elsewhere.example", 6),
            ("carol@sub.example.net", "u@elsewhere.example", "usual"),
            (None, "u@elsewhere.example", 7),
            (None, "u@partner.example", 0),
        ):
            self.assertWay(sender, recipient, way)

    def test_names_below_a_domain_are_not_the_domain_and_the_longest_counts(self):
        self.assertWay("x@y.example", "u@example.org", "usual")
        self.assertWay("x@y.example", "u@a.b.example.org", 1)
        self.assertWay("x@y.example", "u@deep.example.org", 1)
        self.assertWay("x@y.example", "u@a.deep.example.org", 2)
        self.assertWay("x@y.example", "u@notexample.org", "usual")

    def test_addresses_without_a_domain_name_go_the_usual_way(self):
        for recipient in ("u@[192.0.2.1]", "u@[IPv6:2001:db8::1]"):
            self.assertWay("x@y.example", recipient, "usual")
        ways = RouteMap("usual", [(RouteRule(("partner.example",)), "way"), (RouteRule((), ("example.net",)), "way")])
        self.assertEqual(ways.route_for(Address("a", "\u2024."), Address("postmaster", "")), "usual")
        self.assertEqual(ways.route_for(None, Address("a", "x\u200b..y")), "usual")

    def test_without_rules_there_is_one_way(self):
        ways = RouteMap("usual")
        self.assertTrue(ways.is_single)
        self.assertEqual((ways.route_for(None, Address("a", "b.example")), list(ways.ways)), ("usual", ["usual"]))


names = st.sampled_from(["a.example", "b.a.example", "*.a.example", "*.example"])
senders = st.sampled_from(["u@a.example", "a.example", "*.example", "<>"])
rules = st.lists(st.builds(RouteRule, st.lists(names, max_size=2, unique=True).map(tuple), st.lists(senders, max_size=2, unique=True).map(tuple)), max_size=6)


class Contradictions(SynchronousTestCase):
    def test_the_same_domain_with_the_same_sender_is_one(self):
        first = RouteRule(("a.example", "b.example"), ("x@y.example",))
        (clash,) = clashes([first, RouteRule(("b.example",)), RouteRule(("b.example",), ("x@y.example", "y.example"))])
        self.assertEqual((clash.first, clash.second, clash.domain, clash.sender), (0, 2, "b.example", "x@y.example"))
        self.assertEqual([one.domain for one in clashes([RouteRule((), ("<>",)), RouteRule((), ("<>",))])], [ANY])

    @given(rules, st.permutations(range(6)))
    def test_without_contradictions_the_order_of_the_rules_means_nothing(self, made, order):
        if clashes(made):
            return
        numbered = [(rule, n) for n, rule in enumerate(made)]
        shuffled = [numbered[n] for n in order if n < len(numbered)]
        for sender in (None, Address("u", "a.example"), Address("x", "c.example")):
            for domain in ("a.example", "b.a.example", "c.b.a.example", "else.example", "other.test"):
                address = Address("r", domain)
                self.assertEqual(RouteMap(None, numbered).route_for(sender, address), RouteMap(None, shuffled).route_for(sender, address))
