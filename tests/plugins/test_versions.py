"""Which plugins a server of one API runs, and how one of 0.1 still does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import ConfigurationError, Options, parse
from mailserver.interfaces import IContentFilter, IPeerFilter
from mailserver.plugins.catalogue import Catalogue, FoundPlugin, PluginError, build_component, discover
from mailserver.plugins.versions import API_VERSION, WrongVersion, is_former, require_api
from mailserver.testing import FilterCase
from tests.cli.support import run
from tests.plugins.test_catalogue import FACTORY, WithPluginFolder, factory

GREYLIST_OF_01 = '''
"""A greylist as its author wrote it for 0.1: old paths, a state store that answers at once."""

import warnings

from zope.interface import implementer

from mailserver.config import Options
from mailserver.interfaces import IComponentFactory, IRecipientFilter
from mailserver.mail.answers import Defer, Pass

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mailserver.mail.answers import Deferred, Delivered
    from mailserver.mail.lookup import LookupFailed

OUTCOMES = (Deferred, Delivered, LookupFailed)


class GreylistOptions(Options):
    delay: int = 300


@implementer(IRecipientFilter)
class Greylist:
    def __init__(self, options, services):
        self._delay, self._state, self._clock = options.delay, services.state, services.clock

    async def judge_recipient(self, envelope, recipient):
        key = f"{envelope.peer.address} {envelope.sender} {recipient.address}"
        seen = self._state.get("greylist", key)
        if seen is None:
            self._state.put("greylist", key, str(self._clock.seconds()).encode(), 86400)
            return Defer("first seen now")
        waited = self._clock.seconds() - float(seen)
        return Pass() if waited >= self._delay else Defer(f"came back after {waited:g} s")


@implementer(IComponentFactory)
class Factory:
    name = "greylist-of-01"
    summary = "A greylist."
    provides = IRecipientFilter
    options = GreylistOptions

    def build(self, options, services):
        return Greylist(options, services)


factory = Factory()
'''


def of(api_version: object) -> Any:
    return SimpleNamespace(name="one", api_version=api_version)


class Versions(SynchronousTestCase):
    def test_a_version_means_it_and_later_ones_of_its_major(self) -> None:
        for asked, offered in (("1", "1.0"), ("1.0", "1.0"), ("1.0", "1.7"), ("1.7", "1.7"), (" 1 ", "1.3"), ("1", "1.12")):
            require_api(of(asked), offered)
        for asked, offered in (("1.1", "1.0"), ("2", "1.0"), ("1", "2.0"), ("0.1", "1.0"), ("1.10", "1.9")):
            error = self.assertRaises(WrongVersion, require_api, of(asked), offered)
            self.assertEqual(str(error), f"'one' was written for plugin API {asked}; this server has {offered}")

    def test_a_range_means_what_it_says(self) -> None:
        for asked, offered in ((">=1.0,<2", "1.0"), (">=1.0, <2", "1.9"), ("==1.0", "1.0"), (">=1,<3", "2.4"), (">0.9", "1.0"), ("<=1.0", "1.0")):
            require_api(of(asked), offered)
        for asked, offered in ((">=1.0,<2", "2.0"), (">=1.1", "1.0"), ("==1.0", "1.1"), ("<1", "1.0"), (">1.0,<2", "1.0")):
            self.assertRaisesRegex(WrongVersion, "was written for", require_api, of(asked), offered)

    def test_what_is_no_version_is_told_so(self) -> None:
        for wrong in (1, 1.0, b"1.0", ("1",), "", "one", "1.0.0", ">=", "1,2", "~=1.0", "^1", ">=1;<2", "1" * 9, "1.0\n2"):
            self.assertRaisesRegex(WrongVersion, "write a version or a range", require_api, of(wrong))

    def test_without_one_it_is_of_01_and_runs_until_api_2(self) -> None:
        for old in (SimpleNamespace(name="old"), of(None)):
            self.assertTrue(is_former(old))
            require_api(old, "1.0")
            require_api(old, "1.9")
            self.assertRaisesRegex(WrongVersion, "written for plugin API 0.1, which API 2.0 runs no longer", require_api, old, "2.0")

    def test_all_that_come_with_the_server_name_one_that_it_has(self) -> None:
        for found in discover().found:
            if found.source == "twisted.plugins.mailserver_plugins":
                self.assertIn(found.factory._real().api_version, ("1.0", API_VERSION), found.name)


class OtherMajor(WithPluginFolder):
    def test_it_is_refused_with_a_sentence_by_whoever_uses_it(self) -> None:
        text = FACTORY.format(name="later", public="later").replace('name = "', 'api_version = "2"\n    name = "')
        self.module("acme_later", text)
        catalogue = discover()
        why = f"'later' was written for plugin API 2; this server has {API_VERSION}"
        self.assertEqual([(one.source, one.why) for one in catalogue.broken], [("twisted.plugins.acme_later", why)])
        error = self.assertRaises(PluginError, catalogue.factory, "filter", "later")
        self.assertIn(f"The plugin twisted.plugins.acme_later could not be used:\n{why}", str(error))

    def test_a_configuration_that_uses_it_does_not_start(self) -> None:
        text = FACTORY.format(name="later", public="later").replace('name = "', 'api_version = "2"\n    name = "')
        self.module("acme_later", text)
        frame = 'hostname = "mail.example.org"\ndata = "data"\n[[listen]]\nservice = "lmtp"\nendpoint = "tcp:0"\n'
        with self.assertRaisesRegex(ConfigurationError, f"'later' was written for plugin API 2; this server has {API_VERSION}"):
            parse(frame + '[[filter]]\nuse = "later"\n', file="m.toml", directory="/", options_of=discover().options_of)
        ended = run("plugins", "check")
        self.assertEqual(ended.code, 1)
        self.assertIn("twisted.plugins.acme_later:\n'later' was written for plugin API 2", ended.out)

    def test_one_that_cannot_say_is_broken_and_ends_no_search(self) -> None:
        text = FACTORY.format(name="odd", public="odd")
        self.module("acme_odd", text.replace("    def build", "    api_version = property(lambda self: 1 / 0)\n    def build"))
        [broken] = discover().broken
        self.assertRegex(broken.why, "'odd' cannot say which plugin API it was written for: ZeroDivisionError")

    def test_it_is_not_built_either(self) -> None:
        later = factory(build=lambda *_: self.fail("built"))
        later.api_version = "2"
        self.assertRaisesRegex(PluginError, "written for plugin API 2", build_component, later, Options(), None)


class OfZeroOne(WithPluginFolder, FilterCase):
    def setUp(self) -> None:
        WithPluginFolder.setUp(self)
        FilterCase.setUp(self)

    def greylist(self) -> Any:
        self.module("acme_greylist", GREYLIST_OF_01)
        self.catalogue = discover()
        self.assertEqual(self.catalogue.broken, ())
        return self.catalogue.factory("filter", "greylist-of-01")

    def test_a_greylist_of_01_greylists(self) -> None:
        component = self.build(self.greylist(), delay=300)
        ask = component.judge_recipient
        who, whom = self.envelope(), self.recipient()
        self.assertDeferred(self.judge(ask(who, whom)), "first seen now")
        self.clock.advance(299)
        self.assertDeferred(self.judge(ask(who, whom)), "came back after 299 s")
        self.clock.advance(1)
        self.assertPassed(self.judge(ask(who, whom)))
        self.assertDeferred(self.judge(ask(self.envelope("other@example.net"), whom)), "first seen now")

    def test_it_is_warned_of_once(self) -> None:
        greylist = self.greylist()
        told: list[str] = []

        def hear(event: Any) -> None:
            if "plugin API" in str(event.get("words", "")):
                told.append(event["words"])

        globalLogPublisher.addObserver(hear)
        self.addCleanup(globalLogPublisher.removeObserver, hear)
        for _ in range(3):
            self.catalogue.build("filter", "greylist-of-01", greylist.options(), self.services)
        self.assertEqual(len(told), 1)
        self.assertRegex(told[0], r"'greylist-of-01' was written for plugin API 0.1: it still runs, and no longer with API 2")

    def test_one_of_today_is_not_warned_of(self) -> None:
        found = FoundPlugin(discover().factory("filter", "null_mx"), "here")
        catalogue = Catalogue([found])
        catalogue.build("filter", "null_mx", found.factory.options(), self.services)
        self.assertEqual(catalogue._warned_of, set())
        self.assertFalse(found.is_a(IContentFilter) or found.is_a(IPeerFilter))
