"""A filter that wants a copy held has it held, at whatever stage it says so, and may let it go."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from mailserver.api import (
    IComponentFactory,
    IContentFilter,
    IPeerFilter,
    IRecipientContentFilter,
    IRecipientFilter,
    ISenderFilter,
    Options,
    Pass,
    Quarantine,
    Services,
    StorageBroken,
)
from mailserver.mail.set_apart import holders_of
from mailserver.testing import MailCase

STAGES = ("peer", "sender", "recipient", "content", "content_for")


class HoldsOptions(Options):
    stage: str = "content_for"
    hold: bool = True
    whom: str = "alice"


@implementer(IPeerFilter, ISenderFilter, IRecipientFilter, IContentFilter, IRecipientContentFilter)
class Holds:
    """Puts aside at one stage."""

    def __init__(self, options: HoldsOptions, services: Services) -> None:
        self.options = options
        self.services = services

    def says(self, stage: str, *whom: Any) -> Any:
        meant = stage == self.options.stage and all(one.address.local == self.options.whom for one in whom)
        return Quarantine(f"{self.services.name} at {stage}", hold=self.options.hold) if meant else Pass()

    async def judge_peer(self, peer: Any) -> Any:
        return self.says("peer")

    async def judge_sender(self, envelope: Any) -> Any:
        return self.says("sender")

    async def judge_recipient(self, envelope: Any, recipient: Any) -> Any:
        return self.says("recipient", recipient)

    async def judge_content(self, envelope: Any, content: Any) -> Any:
        return self.says("content")

    async def judge_content_for(self, envelope: Any, content: Any, recipient: Any) -> Any:
        return self.says("content_for", recipient)


@implementer(IComponentFactory)
class HoldsFactory:
    name = "holds"
    summary = "Puts aside at one stage."
    api_version = "1.0"
    options = HoldsOptions
    provides = IContentFilter

    def build(self, options: HoldsOptions, services: Services) -> Holds:
        return Holds(options, services)


TABLE = '[[filter]]\nuse = "holds"\nname = "{name}"\nstage = "{stage}"\nhold = {hold}\n'


class Holding(MailCase):
    def held(self, name: str) -> list[Any]:
        return [(one.recipient, one.held_by) for one in self.answer(self.component(name).services.quarantine.held())]

    def test_it_is_held_at_every_stage_although_the_policy_says_junk(self) -> None:
        for stage in STAGES:
            self.serve(TABLE.format(name=f"of-{stage}", stage=stage, hold="true"), HoldsFactory())
            self.assertEqual(self.send().code, 250)
            self.assertEqual(self.held(f"of-{stage}"), [("alice@example.org", (f"of-{stage}",))], stage)
            self.assertEqual(self.mailbox("alice@example.org") + self.mailbox("alice@example.org", "Junk"), [])

    def test_it_is_in_junk_where_that_is_not_wanted(self) -> None:
        for stage in STAGES:
            self.serve(TABLE.format(name=f"of-{stage}", stage=stage, hold="false"), HoldsFactory())
            self.send()
            self.assertEqual((self.held(f"of-{stage}"), len(self.mailbox("alice@example.org", "Junk"))), ([], 1), stage)

    def test_one_recipients_hold_is_nobody_elses(self) -> None:
        self.serve(TABLE.format(name="contacts", stage="content_for", hold="true"), HoldsFactory())
        self.assertEqual(self.send(recipients=["bob@example.org", "alice@example.org"]).code, 250)
        self.assertEqual(self.held("contacts"), [("alice@example.org", ("contacts",))])
        self.assertEqual(len(self.mailbox("bob@example.org")), 1)

    def test_all_who_hold_it_are_known_and_each_lets_go_for_itself(self) -> None:
        tables = TABLE.format(name="early", stage="content", hold="false") + TABLE.format(
            name="contacts", stage="content_for", hold="true"
        )
        self.serve(tables, HoldsFactory())
        self.send()
        (taken,) = self.taken
        (apart,) = taken.set_apart.values()
        self.assertEqual([one.filter for one in holders_of(apart.findings)], ["early", "contacts"])
        (one,) = self.answer(self.component("contacts").services.quarantine.held())
        for name in ("contacts", "early"):
            self.assertEqual(self.mailbox("alice@example.org"), [])
            quarantine = self.component(name).services.quarantine
            self.assertEqual(self.answer(quarantine.release([one.id], by="alice")), [one.id])
        self.assertEqual(len(self.mailbox("alice@example.org")), 1)
        self.assertEqual(self.quarantine.done, [("release", one.id, "alice")] * 2)

    def test_over_lmtp_the_recipient_whose_copy_is_held_hears_yes(self) -> None:
        self.serve(TABLE.format(name="contacts", stage="content_for", hold="true"), HoldsFactory())
        sent = self.send(service="lmtp", recipients=["alice@example.org", "bob@example.org"])
        self.assertEqual(sent.code, 250)
        self.assertEqual(self.held("contacts"), [("alice@example.org", ("contacts",))])

    def test_in_the_double_junk_and_drop_are_the_end_of_it(self) -> None:
        self.serve(TABLE.format(name="contacts", stage="content_for", hold="true"), HoldsFactory())
        quarantine = self.component("contacts").services.quarantine
        for verb, count in ((quarantine.to_junk, 1), (quarantine.drop, 1)):
            self.send()
            (one,) = self.answer(quarantine.held(recipient="alice@*"))
            self.assertEqual(self.answer(verb([one.id])), [one.id])
            self.assertEqual((len(self.mailbox("alice@example.org", "Junk")), self.answer(quarantine.held())), (count, []))

    def test_a_verb_of_the_double_can_fail_and_one_that_is_not_awaited_is_told(self) -> None:
        quarantine = self.services.quarantine
        id = self.quarantine.hold(recipient="alice@example.org")
        self.quarantine.failing = {"held"}
        with self.assertRaises(StorageBroken):
            self.answer(quarantine.held())
        forgotten = quarantine.release([id])
        self.assertEqual(len(self.quarantine.calls.never_awaited()), 1)
        del forgotten
