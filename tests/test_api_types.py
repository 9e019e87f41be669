"""What `mypy --strict` finds in a plugin: each of the faults that authors make, and nothing in a sound one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.skeletons.writing import KINDS, STAGES, write_skeleton
from tests.rfc_index import ROOT

PLUGIN = '''
from collections.abc import Mapping, Sequence

from zope.interface import implementer

from mailserver.api import (
    AddHeader, Address, Content, Defer, Delivered, Destination, Edit, Envelope, Finding, IComponentFactory, IContentFilter,
    IDelivery, IModifier, IPeerFilter, ISenderFilter, Local, Mailbox, Options, Outcome, Pass, Peer, Quarantine, Refuse, Remote,
    Services, Verdict,
)
from mailserver.api import Pas  # fault: no such name


def length(text: str) -> int:
    return len(text)


@implementer(IContentFilter)
class Judge:
    def __init__(self, services: Services) -> None:
        self.services = services

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        services = self.services
        subject = content.headers.get("subject").lower()  # fault: there may be none
        domain = envelope.sender.domain  # fault: the null sender has none
        if not envelope.recipents:  # fault: misspelt
            return Quarantine()  # fault: without a reason
        answer = services.resolver.query(domain, "MX")
        if answer.records:  # fault: not awaited
            return Refuse("no", enhanced=571)  # fault: a number for a text
        await services.resolver.qurey(domain, "A")  # fault: misspelt
        await services.run_in_thread(length, 7)  # fault: the function takes a text
        services.clock.callLater("5", print)  # fault: seconds are a number
        if services.hostnam == subject:  # fault: misspelt
            return Pass(findings=[Finding("spf", 2.0)])  # fault: a list for a tuple
        if envelope.peer.adress == "":  # fault: misspelt
            return Pass(findings=(Finding("spf", score="high"),))  # fault: a text for a number
        await services.state.put("key", "value", 60)  # fault: values are bytes
        await services.state.gett("key")  # fault: misspelt
        services.metrics.count(7)  # fault: a name is a text
        return None  # fault: no verdict


@implementer(IPeerFilter)
class Silent:  # fault: the method is missing
    async def judge_peers(self, peer: Peer) -> Verdict:
        return Pass()


@implementer(ISenderFilter)
class Shapeless:
    async def judge_sender(self, envelope: Envelope, peer: Peer) -> Verdict:  # fault: it gets the envelope alone
        return Defer("later")


@implementer(IModifier)
class Marks:
    async def edits(self, envelope: Envelope, content: Content) -> Sequence[Edit]:
        return [AddHeader("X-Mark", b"bytes")]  # fault: octets for a text


@implementer(IDelivery)
class Drops:
    stores = True

    async def deliver(self, envelope: Envelope, content: Content, destinations: Sequence[Destination]) -> Mapping[int, Outcome]:
        for destination in destinations:
            user = destination.route.mailbox  # fault: a Remote has none
        Local(Address.parse("a@example.org"), Mailbox("a"))  # fault: without its domain
        return {"0": Delivered()}  # fault: indexes are numbers

    async def flush(self) -> None:
        Delivered(reply=250)  # fault: it has no reply
'''


FORGETFUL = '''
from mailserver.api import Defer, IRecords, IStateStore, Pass, Verdict


async def judged(state: IStateStore, records: IRecords, key: str) -> Verdict:
    state.put(key, b"1", 60)  # fault
    records.drop(key)  # fault
    if state.get(key):  # fault
        return Pass()
    if records.get(key) is None:  # fault
        return Pass()
    met = state.get(key)
    if not met:  # fault
        return Pass()
    if await state.get(key) is None:
        return Defer("never seen")
    known = state.get(key)
    return Defer("known") if known is not None else Pass()  # fault
'''


class Types(SynchronousTestCase):
    def mypy(self, path: Path, *arguments: str) -> str:
        """What mypy says; with the cache of `make check`, which is warm."""
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml", *arguments],
            cwd=ROOT,
            env={**os.environ, "MYPYPATH": f"{ROOT}:{path}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=230,
        )
        return done.stdout + done.stderr

    def test_every_planted_fault_is_found_in_its_line_and_nothing_else(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "faulty_plugin.py").write_text(PLUGIN)
        said = self.mypy(folder, "-m", "faulty_plugin")
        found = {int(number) for number in re.findall(r"faulty_plugin\.py:(\d+): error", said)}
        planted = {number for number, line in enumerate(PLUGIN.splitlines(), 1) if "# fault" in line}
        self.assertGreaterEqual(len(planted), 15)
        lines = PLUGIN.splitlines()
        self.assertEqual([lines[number - 1].strip() for number in sorted(planted - found)], [], said)
        self.assertEqual([lines[number - 1].strip() for number in sorted(found - planted)], [], said)

    def test_by_its_own_settings_a_new_plugin_of_each_kind_has_none_and_each_forgotten_await_is_found(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        for kind in KINDS:
            written, _ = write_skeleton(f"its-{kind}", str(folder), kind)
            (Path(written) / f"mailserver_its_{kind}").rename(folder / f"mailserver_its_{kind}")
        (folder / "forgetful.py").write_text(FORGETFUL)
        for stage in STAGES:
            written, _ = write_skeleton(f"at-{stage.replace('_', '-')}", str(folder), "filter", stage)
            (Path(written) / f"mailserver_at_{stage}").rename(folder / f"mailserver_at_{stage}")
        settings = ("--config-file", f"{folder}/mailserver-its-checker/pyproject.toml", "--follow-imports=silent")
        packages = [f"mailserver_its_{kind}" for kind in KINDS] + [f"mailserver_at_{stage}" for stage in STAGES]
        said = self.mypy(folder, *settings, *(word for name in packages for word in ("-p", name)), "-p", "forgetful")
        self.assertIn(f"(checked {len(packages) + 1} source files)", said)
        found = {int(number) for number in re.findall(r"forgetful\.py:(\d+): error", said)}
        self.assertEqual(found, {number for number, line in enumerate(FORGETFUL.splitlines(), 1) if "# fault" in line}, said)
        self.assertEqual([line for line in said.splitlines() if ": error" in line and "forgetful.py" not in line], [], said)
