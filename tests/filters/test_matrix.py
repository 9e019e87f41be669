"""One message, six users with different lists, thresholds and contacts, and three with burnt addresses and learning of their own: each has the outcome that is right for him."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from mailserver.filters.learnt_commands import in_words
from mailserver.mail.set_apart import Hold
from mailserver.testing import MailCase
from mailserver.trust.tokens import reduced
from tests.filters.mail_corpus import Corpus

USERS = ("alice", "bob", "carol", "dora", "emil", "fred")
ADDRESSES = tuple(f"{one}@example.org" for one in USERS)
CONFIG = f"""
[accounts]
use = "memory"
names = {[*ADDRESSES, "gus@example.org"]}

[[filter]]
use = "spf"

[[filter]]
use = "dkim"

[[filter]]
use = "lists"
after = ["spf", "dkim"]

[[filter]]
use = "contacts"
after = ["lists"]

[[filter]]
use = "scores"
tag = 1
junk = 3
refuse = 15
"""
SENDER = "eve@odd.example"
MESSAGE = b"From: eve@odd.example\nSubject: offer\n\nBuy.\n"


class MatrixCase(MailCase):
    def order(self, component: Any, name: str, **arguments: Any) -> Any:
        (command,) = [one for one in component.commands() if one.name == name]
        return self.answer(command.run(**arguments))

    def outcomes(self, id: str) -> dict[str, str]:
        """What became of each one's copy."""
        found = {}
        taken = [one for one in self.taken if one.id == id]
        for one in taken[0].destinations if taken else ():
            who, apart = one.recipient.address.local, taken[0].set_apart.get(one.index)
            junk = getattr(one.route, "mailbox", None) is not None and one.route.mailbox.junk  # type: ignore[union-attr]
            kind = f"held: {apart.kind}" if isinstance(apart, Hold) else "returned"
            found[who] = kind if apart is not None else "junk" if junk else "tagged" if one.lines else "inbox"
        return found


class Matrix(MatrixCase):
    def setUp(self) -> None:
        super().setUp()
        self.resolver.zones["odd.example"] = {"TXT": ["v=spf1 ?all"]}
        self.serve(CONFIG)
        lists, scores = self.component("lists"), self.component("scores")
        self.order(lists, "add", colour="grey", entry="odd.example", scope="bob@example.org")  # 3 points: Junk
        self.order(lists, "add", colour="black", entry="eve@odd.example", scope="carol@example.org")
        self.order(lists, "add", colour="white", entry="eve@odd.example", scope="dora@example.org", evidence="none")
        self.order(lists, "add", colour="grey", entry="odd.example", scope="@example.org")
        self.answer(scores.set("alice@example.org", junk="9"))  # the domain's 3 points tag her copy alone
        self.answer(scores.set("dora@example.org", refuse="0.5", junk="off", tag="off"))  # an allow entry: nothing is weighed
        self.answer(scores.set("emil@example.org", refuse="3", junk="off"))
        self.order(self.component("contacts"), "hold", scope="fred@example.org", holds="on")
        self.answer(scores.set("fred@example.org", junk="off"))

    def test_over_smtp_each_has_his_own_and_nothing_goes_to_the_sender(self) -> None:
        sent = self.send(MESSAGE, sender=SENDER, recipients=ADDRESSES, address="8.8.4.4")
        self.assertEqual({one.partition("@")[0]: reply.code for one, reply in sent.recipients.items() if reply.code != 250}, {"carol": 550})
        self.assertEqual(sent.code, 250)
        self.assertEqual(
            self.outcomes(sent.id),
            {"alice": "tagged", "bob": "junk", "dora": "inbox", "emil": "held: refused", "fred": "held: quarantined"},
        )
        self.assertEqual(self.sent_to(SENDER), [])
        held = {one.recipient: one.held_by for one in self.answer(self.quarantine.space("contacts").held())}
        self.assertEqual(held, {"fred@example.org": ("contacts",)})

    def test_over_lmtp_whoever_refuses_says_so_himself(self) -> None:
        sent = self.send(MESSAGE, sender=SENDER, recipients=[one for one in ADDRESSES if "carol" not in one], service="lmtp")
        self.assertEqual([one.code for one in sent.data], [250, 250, 250, 550, 250])
        self.assertEqual(sorted(self.outcomes(sent.data[0].id)), ["alice", "bob", "dora", "fred"])
        self.assertEqual(self.sent_to(SENDER), [])

    def test_over_submission_it_goes_by_lists_and_thresholds_and_no_user_of_ours_is_a_stranger(self) -> None:
        for colour, scope in (("grey", "@example.org"), ("grey", "bob@example.org"), ("black", "carol@example.org"), ("white", "dora@example.org")):
            self.order(self.component("lists"), "add", colour=colour, entry="gus@example.org", scope=scope, evidence="none")
        sent = self.send(b"From: gus@example.org\n\nBuy.\n", sender="gus@example.org", recipients=ADDRESSES, service="submission",
                         login="gus@example.org")  # fmt: skip
        codes = {one.partition("@")[0]: reply.code for one, reply in sent.recipients.items() if reply.code != 250}
        self.assertEqual((codes, sent.code), ({"carol": 550}, 250))
        self.assertEqual(
            self.outcomes(sent.id), {"alice": "tagged", "bob": "junk", "dora": "inbox", "emil": "returned", "fred": "tagged"}
        )

    def test_alone_each_hears_what_is_his(self) -> None:
        codes = {one: self.send(MESSAGE, sender=SENDER, recipients=[f"{one}@example.org"], address="8.8.4.4").code for one in USERS}
        self.assertEqual(codes, {"alice": 250, "bob": 250, "carol": 550, "dora": 250, "emil": 550, "fred": 250})


LEARNERS = ("gina", "hugo", "ida")
LEARNING = f"""
[accounts]
use = "memory"
names = {[f"{one}@example.org" for one in LEARNERS]}

[[filter]]
use = "spf"

[[filter]]
use = "contacts"

[[filter]]
use = "subaddresses"

[[filter]]
use = "bayes"
minimum = 5
maildirs = ""

[[filter]]
use = "scores"
junk = 3
"""


class OwnLearning(MatrixCase):
    """The same message for gina, who has learnt that it is spam, for hugo, who has learnt the opposite, and for ida's addresses:
    one is closed, one was given to somebody else, one to the sender."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.resolver.zones["odd.example"] = {"TXT": ["v=spf1 ip4:8.8.4.4 -all"]}
        self.serve(LEARNING)
        corpus = Corpus(3)
        self.offer = corpus.message("spam", overlap=0.2, words=80).split(b"\r\n\r\n")[1].replace(b"\r\n", b"\n")
        bayes = self.component("bayes")
        for user, its_spam in (("gina", "spam"), ("hugo", "ham")):
            for kind in ("spam", "ham"):
                messages = [corpus.message(kind if its_spam == "spam" else {"spam": "ham", "ham": "spam"}[kind]) for _ in range(40)]
                learnt = in_words([reduced(one, bayes._learnt.key)[0] for one in messages])
                self.order(bayes, "learn", kind=kind, messages=learnt, user=f"{user}@example.org")
        addresses = self.component("subaddresses")
        for detail, sender in (("closed", "odd.example"), ("theirs", "shop.example"), ("his", "odd.example")):
            self.order(addresses, "open", address=f"ida+{detail}@example.org", domain=sender)
        self.order(addresses, "close", address="ida+closed@example.org")
        self.to = ["gina@example.org", "hugo@example.org", *[f"ida+{one}@example.org" for one in ("closed", "theirs", "his")]]

    def services_for(self, name: str) -> Any:
        return replace(super().services_for(name), data_directory=self.folder, keys_directory=os.path.join(self.folder, "keys"))

    def test_over_smtp_what_one_has_learnt_or_closed_is_nobody_elses(self) -> None:
        sent = self.send(b"From: eve@odd.example\n\n" + self.offer, sender=SENDER, recipients=self.to, address="8.8.4.4")
        self.assertEqual([reply.code for reply in sent.recipients.values()], [250, 250, 550, 250, 250])
        self.assertEqual(self.outcomes(sent.id), {"gina": "junk", "hugo": "inbox", "ida+theirs": "junk", "ida+his": "inbox"})
        self.assertEqual(self.sent_to(SENDER), [])

    def test_over_lmtp_a_closed_address_is_refused_alone(self) -> None:
        sent = self.send(b"From: eve@odd.example\n\n" + self.offer, sender=SENDER, recipients=self.to, service="lmtp")
        self.assertEqual([reply.code for reply in sent.recipients.values()], [250, 250, 550, 250, 250])
        self.assertEqual([one.code for one in sent.data], [250] * 4)
        self.assertEqual(self.sent_to(SENDER), [])

    def test_over_submission_a_closed_address_is_closed_and_mail_of_our_own_users_is_no_matter_of_learning(self) -> None:
        sent = self.send(b"From: gina@example.org\n\n" + self.offer, sender="gina@example.org", recipients=self.to,
                         service="submission", login="gina@example.org")  # fmt: skip
        self.assertEqual([reply.code for reply in sent.recipients.values()], [250, 250, 550, 250, 250])
        found = self.outcomes(sent.id)
        self.assertEqual(found, {"gina": "inbox", "hugo": "inbox", "ida+theirs": "inbox", "ida+his": "inbox"})
