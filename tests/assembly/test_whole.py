"""The parts as they are joined: what a configuration says is what clients meet."""

from __future__ import annotations

from tests.assembly.in_process import WholeCase


class Mail(WholeCase):
    async def test_mail_goes_the_whole_way(self) -> None:
        service = await self.serve()
        self.assertEqual((await self.send(service)).code, 250)
        [mail] = await self.until(lambda: self.messages("alice"), "the mail is in the Maildir")
        self.assertTrue(mail.endswith((b"hello\n", b"hello\r\n")))
        self.assertEqual((await self.ask("status"))["hostname"], "mx.example.org")
