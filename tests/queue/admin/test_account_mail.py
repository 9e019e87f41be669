"""What an account has in the queue is held and released: all of it, and nothing of anybody else's."""

from __future__ import annotations

from mailserver.mail.answers import Delayed
from mailserver.mail.reply import Reply
from mailserver.queue.admin.account_mail import AccountMail
from mailserver.queue.admin.changes import Verb
from mailserver.queue.admin.orders import Order
from mailserver.queue.admin.selection import Selection
from tests.queue.test_held_copies import ALICE, ASIDE, BOB, FAR, HeldCase

LATER = Delayed(Reply.of(450, "4.2.1", "later"), "later")


class AccountMailCase(HeldCase):
    def mail(self, queue, name="guard"):
        return AccountMail(name, orders=lambda: queue.verbs)

    async def waiting(self, queue, login, *destinations, apart=None):
        """A message whose first attempt has failed for a while."""
        id = await self.send(queue, apart or {}, *destinations, login=login)
        await self.pass_time(1, id, "deferred")
        return id

    async def begun(self):
        queue = await self.queue()
        self.delivery.answers.update({"alice": LATER, "bob": LATER})
        self.relay.answers["carol"] = LATER
        return queue


class Accounts(AccountMailCase):
    async def test_one_accounts_mail_is_held_with_a_note_and_released_and_nobody_elses(self):
        queue = await self.begun()
        logins = ("a@example.org", "A@example.org", "aa@example.org", "", "*")
        ids = [await self.waiting(queue, login, FAR) for login in logins]
        self.assertEqual(await self.mail(queue).hold("a@example.org", "stopped"), (2, 0))
        states = [await self.states(queue, id) for id in ids]
        self.assertEqual(states, [[("held", "")]] * 2 + [[("deferred", "")]] * 3)
        self.assertIn("held by guard: stopped", (await queue.show(ids[0])).destinations[0].note)
        self.assertEqual(await self.mail(queue).hold("a@example.org", "stopped"), (0, 0))
        self.assertEqual(await self.mail(queue).release("aa@example.org", "root"), (0, 0))
        self.assertEqual(await self.mail(queue, "other").release("a@example.org", "root"), (0, 0))
        self.assertEqual(await self.mail(queue, "guard*").release("a@example.org", "root"), (0, 0))
        self.assertEqual(await self.mail(queue).hold("*", "stopped"), (1, 0))
        self.relay.answers.clear()
        self.assertEqual(await self.mail(queue).release("a@example.org", "root"), (2, 0))
        for id in ids[:2]:
            await self.until(lambda id=id: "delivered" in self.steps.of(id))
        self.assertEqual(await self.states(queue, ids[4]), [("held", "")])

    async def test_what_a_person_or_a_verdict_holds_is_not_touched(self):
        queue = await self.begun()
        person = await self.waiting(queue, "a@example.org", FAR)
        await queue.verbs.carry_out(Order(Verb.HOLD, Selection(id=person), "root"), after=0)
        verdict = await self.waiting(queue, "a@example.org", ALICE, BOB, apart={1: ASIDE})
        self.assertEqual(await self.mail(queue).hold("a@example.org", "stopped"), (1, 0))
        self.assertEqual(await self.states(queue, verdict), [("held", ""), ("held", "quarantined")])
        self.assertEqual(await self.mail(queue).release("a@example.org", "root"), (1, 0))
        self.assertEqual(await self.states(queue, person), [("held", "")])
        self.assertEqual((await self.states(queue, verdict))[1], ("held", "quarantined"))

    async def test_only_what_was_received_in_a_time_is_held_and_released(self):
        queue = await self.begun()
        first = await self.waiting(queue, "a@example.org", FAR)
        self.clock.advance(10)
        between = self.clock.seconds()
        second = await self.waiting(queue, "a@example.org", FAR)
        mail = self.mail(queue)
        self.assertEqual(await mail.hold("a@example.org", "stopped", before=between), (1, 0))
        self.assertEqual([(await self.states(queue, id))[0][0] for id in (first, second)], ["held", "deferred"])
        self.assertEqual(await mail.release("a@example.org", since=between), (0, 0))
        self.assertEqual(await mail.hold("a@example.org", "stopped", since=between), (1, 0))
        self.assertEqual(await mail.release("a@example.org", since=between), (1, 0))
        self.assertEqual((await self.states(queue, first))[0][0], "held")

    async def test_it_outlives_a_crash_and_does_not_expire(self):
        queue = await self.begun()
        id = await self.waiting(queue, "a@example.org", FAR)
        await self.mail(queue).hold("a@example.org", "stopped")
        await self.crash(queue)
        self.clock.advance(60 * 86_400)
        queue = await self.queue()
        self.assertEqual(await self.states(queue, id), [("held", "")])
        self.assertEqual(await self.mail(queue).release("a@example.org"), (1, 0))

    async def test_nobody_is_no_account(self):
        queue = await self.begun()
        with self.assertRaises(ValueError):
            await self.mail(queue).hold("", "stopped")
        with self.assertRaises(ValueError):
            await self.mail(queue).release("")
