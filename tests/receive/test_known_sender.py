"""What one recipient's filters refuse after another's yes: whose sender is told, whose copy is held."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from mailserver.api import (
    Address,
    ChangeSender,
    Finding,
    IContentFilter,
    IModifier,
    IRecipientContentFilter,
    ISenderFilter,
    Pass,
    Refuse,
)
from mailserver.mail.set_apart import Hold, Returned
from mailserver.testing import MailCase
from tests.testing.test_mail_case import made_by


@implementer(ISenderFilter, IContentFilter, IRecipientContentFilter)
class Checks:
    """Says of the sender what its local part says, and refuses for bob."""

    async def judge_sender(self, envelope: Any) -> Any:
        passes = "spf" in envelope.sender.local
        spf = {"result": "pass" if passes else "fail", "scope": "mfrom", "domain": envelope.sender.domain_key}
        return Pass(findings=(Finding("spf", properties=spf),))

    async def judge_content(self, envelope: Any, content: Any) -> Any:
        result = "pass" if "dmarc" in envelope.sender.local else "fail"
        return Pass(findings=(Finding("dmarc", properties={"result": result, "domain": envelope.sender.domain_key}),))

    async def judge_content_for(self, envelope: Any, content: Any, recipient: Any) -> Any:
        return Refuse("no") if recipient.address.local == "bob" else Pass()


class Strangers(MailCase):
    def kinds(self, policy: str) -> dict[str, Any]:
        """By sender: what became of bob's copy, and whether a report is owed."""
        found = {}
        for local in ("spf.dmarc", "dmarc", "spf", "nobody"):
            self.serve(f'[policy]\n{policy}\n[[filter]]\nuse = "checks"\n', made_by(
                "checks", (ISenderFilter, IContentFilter, IRecipientContentFilter), lambda services: Checks()
            ))  # fmt: skip
            sent = self.send(sender=f"{local}@far.example", recipients=["alice@example.org", "bob@example.org"])
            self.assertEqual(sent.code, 250)
            (taken,) = self.taken
            (apart,) = taken.set_apart.values()
            found[local] = type(apart), len(self.reports)
        return found

    def test_nobody_is_told_of_whom_it_is_not_known_that_he_sent_it(self) -> None:
        held, told = (Hold, 0), (Returned, 1)
        for policy in ("", 'per_recipient = "quarantine"'):
            self.assertEqual(set(self.kinds(policy).values()), {held}, policy)
        self.assertEqual(
            self.kinds('per_recipient = "report"'), {"spf.dmarc": told, "dmarc": held, "spf": held, "nobody": held}
        )

    def test_nor_is_somebody_whom_a_modifier_has_put_in_his_place(self) -> None:
        for named, told in ((None, False), ("innocent@elsewhere.example", False), ("another@far.example", True)):
            self.serve(
                '[policy]\nper_recipient = "report"\n[[filter]]\nuse = "checks"\n[[filter]]\nuse = "names"\n',
                made_by("checks", (ISenderFilter, IContentFilter, IRecipientContentFilter), lambda services: Checks()),
                made_by("names", IModifier, lambda services, named=named: Names(named)),
            )
            sent = self.send(sender="spf.dmarc@far.example", recipients=["alice@example.org", "bob@example.org"])
            self.assertEqual(sent.code, 250)
            (apart,) = self.taken[0].set_apart.values()
            self.assertEqual((type(apart), len(self.reports)), (Returned if told else Hold, told))
            self.assertEqual(len(self.mailbox("alice@example.org")), 1)


@implementer(IModifier)
class Names:
    def __init__(self, sender: str | None) -> None:
        self._sender = None if sender is None else Address.parse(sender)

    async def edits(self, envelope: Any, content: Any) -> Any:
        return [ChangeSender(self._sender)]
