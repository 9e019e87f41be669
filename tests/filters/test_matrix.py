"""One message, six users with different lists, thresholds and contacts: each has the outcome that is right for him."""

from __future__ import annotations

from typing import Any

from mailserver.testing import MailCase

USERS = ("alice", "bob", "carol", "dora", "emil", "fred")
ADDRESSES = tuple(f"{one}@example.org" for one in USERS)
CONFIG = f"""
[accounts]
use = "memory"
names = {list(ADDRESSES)}

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


class Matrix(MailCase):
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
            found[who] = f"held: {apart.kind}" if apart is not None else "junk" if junk else "tagged" if one.lines else "inbox"
        return found

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

    def test_alone_each_hears_what_is_his(self) -> None:
        codes = {one: self.send(MESSAGE, sender=SENDER, recipients=[f"{one}@example.org"], address="8.8.4.4").code for one in USERS}
        self.assertEqual(codes, {"alice": 250, "bob": 250, "carol": 550, "dora": 250, "emil": 550, "fred": 250})
