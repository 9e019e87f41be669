"""The contracts: what comes with the server keeps them, and each of their tests finds the fault that it is for."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.reporter import TestResult
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailserver.accounts.file import FileDirectoryFactory
from mailserver.delivery.capture import CaptureFactory
from mailserver.filters import denylist, null_mx, scores
from mailserver.interfaces import IContentFilter, IDelivery, IDirectory, IModifier, IRouter
from mailserver.mail.answers import Delivered, Failed, Local, Mailbox, Pass, Remote
from mailserver.mail.edits import AddHeader
from mailserver.mail.reply import Reply
from mailserver.testing import ComponentCase, FilterCase
from mailserver.testing.contracts import (
    DeliveryContract,
    DirectoryContract,
    FilterContract,
    FollowerContract,
    RouterContract,
)


class DenylistKeepsIt(FilterContract, FilterCase):
    def make(self) -> Any:
        return self.build(denylist.factory, networks=["192.0.2.0/24"], sender_domains=["example.org"], senders=["a@example.net"])


class NullMXKeepsIt(FilterContract, FilterCase):
    def make(self) -> Any:
        self.resolver.zones["example.org"] = {"MX": ["0 ."]}
        return self.build(null_mx.factory)


class ScoresKeepIt(FilterContract, FilterCase):
    def make(self) -> Any:
        return self.build(scores.factory)


class Files:
    """A delivery of one file for each message, as it should be."""

    stores = True

    def __init__(self, folder: str) -> None:
        self.folder = folder

    async def deliver(self, envelope: Any, content: Any, destinations: Any) -> Any:
        outcomes = {}
        for mailbox in {one.route.mailbox for one in destinations}:
            data = b"".join(content.chunks())
            with open(os.path.join(self.folder, f"{envelope.id}-{mailbox.user}"), "wb") as file:
                file.write(data)
            outcomes.update({one.index: Delivered() for one in destinations if one.route.mailbox == mailbox})
        return outcomes

    async def flush(self) -> None:
        """Nothing waits."""


@implementer(IDelivery)
class SoundFiles(Files):
    pass


class FilesCase:
    kind: Any = SoundFiles
    folder = ""

    def make(self: Any) -> Any:
        if not self.folder:
            self.folder = os.path.abspath(self.mktemp())
            os.mkdir(self.folder)
        return self.kind(self.folder)

    def stored(self: Any) -> list[bytes]:
        found = []
        for name in sorted(os.listdir(self.folder)):
            with open(os.path.join(self.folder, name), "rb") as file:
                found.append(file.read())
        return found


class FilesKeepIt(FilesCase, DeliveryContract, ComponentCase):
    pass


class Caught(TestCase):
    """A fault of each kind, and the test of the contract that sees it."""

    def failures(self, contract: type, make: Any, **more: Any) -> set[str]:
        case = type("Case", (contract, FilterCase), {"make": make, **more})
        names = [name for name in dir(case) if name.startswith("test_")]
        found = set()
        for name in names:
            result = TestResult()
            case(name).run(result)
            if result.failures or result.errors:
                found.add(name)
        return found

    def assertCaught(self, found: set[str], *words: str) -> None:
        for word in words:
            self.assertTrue(any(word in name for name in found), f"{word}: {sorted(found)}")

    def test_faults_of_a_filter(self) -> None:
        @implementer(IContentFilter)
        class Decoding:
            async def judge_content(self, envelope: Any, content: Any) -> Any:
                content.head.decode("ascii")
                return Pass()

        @implementer(IContentFilter)
        class Wordless:
            async def judge_content(self, envelope: Any, content: Any) -> Any:
                return None

        @implementer(IModifier)
        class Injecting:
            async def edits(self, envelope: Any, content: Any) -> Any:
                return [AddHeader("X-Subject", content.headers.get("subject") or "\r\n")]

        @implementer(IContentFilter)
        class Leaving:
            def __init__(self, clock: Any) -> None:
                self.clock = clock

            def judge_content(self, envelope: Any, content: Any) -> Any:
                answer: Deferred[Any] = Deferred()
                self.clock.callLater(5, lambda: answer.callback(Pass()) if not answer.called else None)
                return answer

        for kind, word in ((Decoding, "message_gets"), (Wordless, "message_gets"), (Injecting, "edited")):
            self.assertCaught(self.failures(FilterContract, lambda _, kind=kind: kind()), word)
        self.assertCaught(self.failures(FilterContract, lambda case: Leaving(case.clock)), "no_timer")

    def test_faults_of_a_delivery(self) -> None:
        def of(**methods: Any) -> set[str]:
            kind = implementer(IDelivery)(type("Kind", (Files,), methods))
            return self.failures(DeliveryContract, FilesCase.make, stored=FilesCase.stored, kind=kind, folder="")

        async def by_position(self: Any, envelope: Any, content: Any, destinations: Any) -> Any:
            outcomes = await Files.deliver(self, envelope, content, destinations)
            return dict(enumerate(outcomes.values()))

        async def lies(self: Any, envelope: Any, content: Any, destinations: Any) -> Any:
            return {one.index: Delivered() for one in destinations}

        async def one_name(self: Any, envelope: Any, content: Any, destinations: Any) -> Any:
            with open(os.path.join(self.folder, "one"), "wb") as file:
                file.write(b"".join(content.chunks()))
            return {one.index: Delivered() for one in destinations}

        async def swallows(self: Any, envelope: Any, content: Any, destinations: Any) -> Any:
            try:
                return await Files.deliver(self, envelope, content, destinations)
            except OSError:
                return {one.index: Failed(Reply.of(554, "5.0.0", "No")) for one in destinations}

        async def copies(self: Any, envelope: Any, content: Any, destinations: Any) -> Any:
            for one in destinations:
                with open(os.path.join(self.folder, f"{envelope.id}-{one.index}"), "wb") as file:
                    file.write(b"".join(content.chunks()))
            return {one.index: Delivered() for one in destinations}

        unsynced = {"stored": FilesCase.stored, "kind": SoundFiles, "folder": "", "on_disk": True}
        self.assertCaught(self.failures(DeliveryContract, FilesCase.make, **unsynced), "flush_syncs")
        self.assertCaught(of(deliver=by_position), "each_index")
        self.assertCaught(of(deliver=lies), "after_the_flush", "called_off", "as_it_is")
        self.assertCaught(of(deliver=one_name), "stay_apart")
        self.assertCaught(of(deliver=swallows), "read_to_its_end")
        self.assertCaught(of(deliver=copies), "are_one_copy")

    def test_faults_of_a_directory(self) -> None:
        @implementer(IDirectory)
        class Believing:
            async def find(self, local_part: str, domain: str) -> Any:
                return Mailbox(local_part, domain)

        @implementer(IDirectory)
        class Matching:
            async def find(self, local_part: str, domain: str) -> Any:
                return Mailbox("alice", domain) if "alice".startswith(local_part) else None

        self.assertCaught(self.failures(DirectoryContract, lambda _: Believing()), "does_not_exist", "file_system")
        self.assertCaught(self.failures(DirectoryContract, lambda _: Matching()), "does_not_exist")

    def test_faults_of_a_router(self) -> None:
        @implementer(IRouter)
        class Empty:
            async def route(self, address: Any) -> Any:
                return [] if address.domain == "example.org" else [Remote(address)]

        @implementer(IRouter)
        class Trusting:
            async def route(self, address: Any) -> Any:
                return [Local(address, Mailbox(address.local, address.domain))]

        self.assertCaught(self.failures(RouterContract, lambda _: Empty()), "has_routes", "has_an_answer")
        self.assertCaught(self.failures(RouterContract, lambda _: Trusting()), "has_an_answer")


    def test_faults_of_a_follower(self) -> None:
        class Right:
            def __init__(self) -> None:
                self.kept: dict[str, int] = {}

            async def accounts_renamed(self, accounts: Any, stage: str) -> None:
                [(old, new)] = accounts.items()
                for name in [one for one in self.kept if one.endswith(old)]:
                    other = name.removesuffix(old) + new
                    if stage != "undo":
                        self.kept[other] = self.kept[name]
                    elif other in self.kept:
                        del self.kept[other]
                    if stage == "complete":
                        del self.kept[name]

            async def account_removed(self, account: str) -> None:
                self.kept.pop(account, None)

            async def kept_of_account(self, account: str) -> int:
                return self.kept.get(account, 0)

        class Copies(Right):
            async def accounts_renamed(self, accounts: Any, stage: str) -> None:
                await super().accounts_renamed(accounts, "begin" if stage == "complete" else stage)

        class Hasty(Right):
            async def accounts_renamed(self, accounts: Any, stage: str) -> None:
                await super().accounts_renamed(accounts, "complete" if stage == "begin" else stage)

        class ForgetsAll(Right):
            async def account_removed(self, account: str) -> None:
                self.kept.clear()

        async def keep(case: Any, component: Any, account: str) -> None:
            component.kept[account] = 3

        self.assertEqual(self.failures(FollowerContract, lambda _: Right(), keep=keep), set())
        self.assertCaught(self.failures(FollowerContract, lambda _: Copies(), keep=keep), "renamed_user", "whole_domain")
        self.assertCaught(self.failures(FollowerContract, lambda _: Hasty(), keep=keep), "taken_back")
        self.assertCaught(self.failures(FollowerContract, lambda _: ForgetsAll(), keep=keep), "removed_user")


class FileAccountsKeepIt(DirectoryContract, ComponentCase):
    def make(self) -> Any:
        path = os.path.abspath(self.mktemp())
        with open(path, "w", encoding="utf-8") as file:
            file.write('[account."alice@example.org"]\ndisabled = false\n')
        os.chmod(path, 0o600)
        return self.build(FileDirectoryFactory(), path=path)


class CaptureKeepsIt(DeliveryContract, ComponentCase):
    path = ""

    def make(self) -> Any:
        self.path = self.path or os.path.abspath(self.mktemp())
        return self.build(CaptureFactory(), path=self.path)

    def destination(self, index: int, name: str = "user") -> Any:
        return self.remote(index, name)

    async def test_two_destinations_in_one_mailbox_are_one_copy(self) -> None:
        """Not here: it shows what each recipient would have got."""
        component = await self.started()
        await self._deliver(component, self._text(1), self.destination(0), self.destination(1))
        self.assertEqual(self._counts(1), [2])

    def stored(self) -> list[bytes]:
        found = []
        for place, _, names in os.walk(self.path):
            for name in names:
                with open(os.path.join(place, name), "rb") as file:
                    found.append(file.read())
        return found
