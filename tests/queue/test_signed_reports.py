"""Reports to senders are signed before they are committed."""

from mailserver.mail.answers import Failed
from mailserver.mail.edits import AddHeader, apply_edits
from mailserver.mail.reply import Reply
from mailserver.queue.reports import ROUTE_AGAIN_SECONDS
from tests.queue.doubles import local
from tests.queue.test_reports import ReportCase

FULL = Failed(Reply.of(552, "5.2.2", "The mailbox is full"))


class Signed(ReportCase):
    async def told(self, *answers):
        """A report is owed, and the signers answer like this, one time after the other."""
        self.signed, left = [], list(answers)

        async def sign(envelope, content):
            self.signed.append((envelope, b"".join(content.chunks())))
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer(content) if callable(answer) else answer

        self.delivery.answers["alice"] = FULL
        queue = await self.started(sign_report=sign)
        return queue, await self.send(queue, local())

    def report(self):
        return next(parcel[1] for parcel in self.delivery.parcels if b"multipart/report" in parcel[1])

    async def test_what_is_sent_is_what_was_signed(self):
        _, id = await self.told(lambda content: apply_edits(content, [AddHeader("X-Sig", "yes")]))
        ((envelope, octets),) = self.signed
        self.assertEqual((envelope.sender, envelope.peer.service), (None, "report"))
        self.assertTrue(self.report().endswith(b"X-Sig: yes\r\n" + octets))
        self.assertIn("reported", self.steps.of(id))

    async def test_where_it_cannot_be_signed_now_it_is_made_later_and_once(self):
        queue, id = await self.told(None, lambda content: content)
        self.assertEqual(self.reports(), [])
        reported = self.steps.wait(id, "reported")
        self.clock.advance(ROUTE_AGAIN_SECONDS)
        await self.until(queue, reported)
        self.assertEqual(len(self.reports()), 1)

    async def test_a_signer_that_raises_delays_it_and_nothing_else(self):
        queue, id = await self.told(ValueError("no key"))
        self.assertEqual(self.reports(), [])
        self.assertEqual((await self.states(queue, id))[0], "failed")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
