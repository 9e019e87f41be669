"""Whatever peers do, each recipient has one outcome, and it is true."""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailserver.mail.answers import Delivered
from tests.relay.network import CLOSE, KEEP, OFFERS, STALL, Peer, RelayCase

REPLIES = st.sampled_from(
    [
        None,
        None,
        None,
        CLOSE,
        STALL,
        "421 4.3.2 Leaving",
        "450 4.2.0 Later",
        "452 4.5.3 Too many",
        "550 5.1.1 No",
        "hm?",
    ]
)
STAGES = ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "END", "RSET", "QUIT")
ENDS = st.one_of(REPLIES, st.just(KEEP))
SCRIPTS = st.lists(st.sampled_from(STAGES), max_size=4, unique=True).flatmap(
    lambda stages: st.fixed_dictionaries(
        {stage: st.lists(ENDS if stage == "END" else REPLIES, min_size=1, max_size=6) for stage in stages}
    )
)
PEERS = st.one_of(
    st.none(), st.builds(Peer, SCRIPTS, st.sampled_from([OFFERS, (), ("PIPELINING",), (*OFFERS, "LIMITS RCPTMAX=1")]))
)


class AnyPeers(RelayCase):
    @settings(max_examples=300, suppress_health_check=list(HealthCheck))
    @given(PEERS, PEERS, st.lists(st.integers(1, 3), min_size=1, max_size=8))
    def test_each_recipient_has_one_outcome_and_a_copy_where_it_says_delivered(self, a, b, sizes):
        self.setUp()
        self.peers(a, b)
        calls = []
        for n, size in enumerate(sizes):
            names = [f"u{n}.{m}@example.org" for m in range(size)]
            calls.append((names, self.begin(*names)))
        for _ in range(400):
            self.turn(30)
            if all(answers for _, answers in calls):
                break
            self.clock.advance(10)
        copies = Counter(name for peer in (a, b) if peer for _, names, _ in peer.messages for name in names)
        for names, answers in calls:
            (outcomes,) = answers
            self.assertEqual(sorted(outcomes), list(range(len(names))))
            for index, name in enumerate(names):
                outcome = outcomes[index]
                if isinstance(outcome, Delivered):
                    self.assertEqual(copies[name], 1, name)
                else:
                    self.assertLessEqual(copies[name], "may have been delivered" in outcome.note, (name, outcome))
        self.pass_time(20)
        for _ in range(100):
            self.clock.advance(10)
        self.assertEqual((self.pool.connections, sum(peer.open for peer in (a, b) if peer)), (0, 0))
        self.assertEqual([destination for destination in self.pool.destinations if destination.waiting or destination.connections], [])
        self.connections._check.stop()
