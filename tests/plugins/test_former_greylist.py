"""A greylist that was written for plugin API 0.1, as its pages told: it is warned of, and works."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailserver.config import Options
from mailserver.interfaces import IComponentFactory, IRecipientFilter
from mailserver.mail.answers import Defer, Pass
from mailserver.plugins.catalogue import build_component
from mailserver.plugins.former_plugins import for_former_plugin
from mailserver.state_store import StateStore
from mailserver.testing import FilterCase, MemoryState
from tests.state_store.threads import new_threads

# --- What its author wrote. ---


class GreylistOptions(Options):
    """When a stranger may come again."""

    wait_seconds: float = 60.0
    """How long the first try is too early."""


@implementer(IRecipientFilter)
class Greylist:
    """Defers the first try of each client, sender and recipient."""

    def __init__(self, options, services):
        self.wait = options.wait_seconds
        self.state = services.state
        self.clock = services.clock

    async def judge_recipient(self, envelope, recipient):
        key = f"{envelope.peer.address} {envelope.sender} {recipient.address}"
        first = self.state.get("greylist", key)
        now = self.clock.seconds()
        if first is None:
            self.state.put("greylist", key, repr(now).encode(), 86400)
            return Defer("come again in a minute")
        if now - float(first) < self.wait:
            return Defer("too early")
        self.state.put("greylist", key, first, 30 * 86400)
        return Pass()


@implementer(IComponentFactory)
class GreylistFactory:
    name = "greylist"
    summary = "Defers whom it does not know"
    provides = IRecipientFilter
    options = GreylistOptions

    def build(self, options, services):
        return Greylist(options, services)


greylist = GreylistFactory()


class GreylistTest(FilterCase):
    """Its own test."""

    def test_a_stranger_is_deferred_and_let_in_after_a_minute(self) -> None:
        component = self.build(greylist)
        ask = lambda: self.judge(component.judge_recipient(self.envelope(), self.recipient()))  # noqa: E731
        self.assertDeferred(ask(), "a minute")
        self.assertDeferred(ask(), "too early")
        self.clock.advance(60)
        self.assertPassed(ask())


# --- What it is lent today. ---


class WithAFile(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.path = os.path.join(self.mktemp(), "state.db")
        os.makedirs(os.path.dirname(self.path))
        self.clock = Clock()
        self.clock.rightNow = 1_800_000_000.0

    async def store(self, **changes: Any) -> StateStore:
        store = StateStore(path=self.path, clock=self.clock, new_threads=new_threads, **changes)
        await store.start()
        self.addCleanup(store.stop)
        return store

    async def test_its_facts_of_earlier_days_are_still_there_and_what_is_not_in_memory_is_read_at_once(self) -> None:
        store = await self.store()
        former = store.space("@filter/greylist").former()
        for n in (0, 1, 2, 7):
            former.put("greylist", f"{n}", b"%d" % n, 600)
        await store.stop()
        store = await self.store()
        former = store.space("@filter/greylist").former()
        self.assertIsNone(store._spaces.get("greylist"), "nobody has asked yet")
        self.assertEqual([former.get("greylist", f"{n}") for n in range(4)], [b"0", b"1", b"2", None])
        former.drop("greylist", "1")
        former.put("greylist", "3", b"3", 600)
        self.assertEqual(former.items("greylist"), [(f"{n}", b"%d" % n, self.clock.seconds() + 600) for n in (0, 2, 3, 7)])
        self.clock.advance(600)
        self.assertEqual((former.get("greylist", "0"), former.items("greylist")), (None, []))

    def test_what_the_server_keeps_is_not_a_plugins(self) -> None:
        former = MemoryState(self.clock, name="@filter/greylist").former()
        for name in ("allowance", "allowance.known", "lockout.pair", "notes", "authentication", "app-password", "@filter/other"):
            with self.assertRaises(ValueError):
                former.get(name, "k")
            with self.assertRaises(ValueError):
                former.put(name, "k", b"v", 60)
        for name in ("greylist", "notes of mine", "", "a:b", "@filter/greylist"):
            former.put(name, "k", b"v", 60)
            self.assertEqual(former.get(name, "k"), b"v")
        with self.assertRaises(ValueError):
            for n in range(100):
                former.get(f"space {n}", "k")

    def test_what_it_cannot_keep_is_said_to_it(self) -> None:
        former = MemoryState(self.clock).former()
        for key, value, lifetime in (("k", "text", 60), ("\ud800", b"v", 60), ("k", b"v", float("nan")), (5, b"v", 60)):
            with self.assertRaises((TypeError, ValueError)):
                former.put("s", key, value, lifetime)  # type: ignore[arg-type]
        former.put("s", "k", b"v", 60)
        former.put("s", "k", b"v", 0)
        self.assertEqual(former.items("s"), [])


class WhatIsLent(FilterCase):
    def test_one_of_today_has_the_awaitable_state_and_a_former_one_the_old(self) -> None:
        lent = self.services
        self.assertIs(for_former_plugin(lent).clock, lent.clock)
        self.assertIsNone(for_former_plugin(lent).state.get("s", "k"))
        component = build_component(greylist, GreylistOptions(), lent)
        self.assertNotIsInstance(component.state, MemoryState)
