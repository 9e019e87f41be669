"""A plugin's work in another process, in the whole server: it hangs, its component is replaced, the server ends."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from mailserver.config import Options
from mailserver.interfaces import IComponentFactory, IRecipientFilter
from mailserver.mail.answers import Pass
from tests.assembly.in_process import BASIC, WholeCase
from tests.processes.heavy_work import for_ever, process_number
from tests.processes.test_jobs import has_ended

EHLO, MAIL = "EHLO client.example", "MAIL FROM:<sender@example.net>"


class HeavyOptions(Options):
    turn: int = 1


@implementer(IRecipientFilter)
class Heavy:
    def __init__(self, services: Any) -> None:
        self.services = services
        self.numbers: list[int] = []

    async def judge_recipient(self, envelope: Any, recipient: Any) -> Pass:
        self.numbers.append(await self.services.run_in_process(process_number))
        if recipient.address.local == "bob":
            await self.services.run_in_process(for_ever, seconds=0.5)
        return Pass()


@implementer(IComponentFactory)
class Making:
    name = "heavy"
    api_version = "1.0"
    summary = "Of a test."
    options = HeavyOptions
    provides = IRecipientFilter

    def __init__(self) -> None:
        self.made: list[Heavy] = []

    def build(self, options: HeavyOptions, services: Any) -> Heavy:
        self.made.append(Heavy(services))
        return self.made[-1]


class InTheServer(WholeCase):
    async def test_work_that_hangs_is_killed_and_what_a_component_has_begun_ends_with_it(self) -> None:
        making = Making()
        text = BASIC + '[[filter]]\nuse = "heavy"\ndeadline = "60s"\n'
        service = await self.serve(text, components=[making])

        async def rcpt(local: str) -> int:
            return (await self.say(service, EHLO, MAIL, f"RCPT TO:<{local}@example.org>"))[-1]

        self.assertEqual(await rcpt("alice"), 250)
        self.assertEqual(await rcpt("bob"), 450)
        [first] = making.made
        self.assertEqual(first.numbers[0], first.numbers[1])
        await self.until(lambda: has_ended(first.numbers[0]), "the process that hangs is killed")
        self.assertEqual(await rcpt("alice"), 250)
        [said] = [one for one in (await self.ask("components"))["components"] if one["kind"] == "filter"]
        self.assertEqual(said["processes"], {"running": 0, "waiting": 0, "hanging": 0})
        self.configure(text + "[limits]\nprocess_memory_bytes = \"256M\"\n")
        await self.ask("reload")
        self.assertEqual(await rcpt("alice"), 250)
        self.assertEqual(first.numbers[-1], first.numbers[-2])  # the component was kept, and its process with it
        self.configure(text + "turn = 2\n")
        await self.ask("reload")
        await self.until(lambda: has_ended(first.numbers[-1]), "it ends with its component")
        self.assertEqual(await rcpt("alice"), 250)
        [number] = making.made[1].numbers
        await self.stop(service)
        self.assertTrue(has_ended(number))
