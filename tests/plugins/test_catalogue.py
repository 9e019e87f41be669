"""Discovery in both places, broken plugins, names used twice, what `build_component` refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

import twisted.plugins
from mailserver.config import Options
from mailserver.interfaces import IBatchDelivery, IComponentFactory, IDelivery, IPeerFilter, IResolver, ISenderFilter
from mailserver.plugins.catalogue import (
    SECTIONS,
    TWISTED_OWN,
    BrokenPlugin,
    Catalogue,
    FoundPlugin,
    PluginError,
    UnknownComponent,
    build_component,
    discover,
    options_class,
)
from tests.plugins.misbehaviour import NONSENSE, RAISES

FACTORY = """
from zope.interface import implementer
from mailserver.config import Options
from mailserver.interfaces import IComponentFactory, IPeerFilter
from mailserver.mail.answers import Pass

@implementer(IPeerFilter)
class Nothing:
    async def judge_peer(self, peer):
        return Pass()

@implementer(IComponentFactory)
class Factory:
    name = "{name}"
    summary = "Nothing."
    provides = IPeerFilter
    options = Options
    def build(self, options, services):
        return Nothing()

{public} = Factory()
"""


def factory(name: str = "one", provides: Any = IPeerFilter, build: Any = None, options: Any = Options) -> Any:
    made = SimpleNamespace(name=name, summary="", provides=provides, options=options, build=build)
    return implementer(IComponentFactory)(type("Factory", (), vars(made)))()


class WithPluginFolder(SynchronousTestCase):
    """A folder among those of ``twisted.plugins``, and one for installed packages."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.packages = self.folder / "packages"
        self.packages.mkdir()
        self.patch(twisted.plugins, "__path__", [*twisted.plugins.__path__, str(self.folder)])
        self.patch(sys, "path", [*sys.path, str(self.packages)])
        modules = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(name) for name in set(sys.modules) - modules if "zenith" in name])

    def module(self, name: str, text: str) -> None:
        (self.folder / f"{name}.py").write_text(text)

    def package(self, name: str, text: str) -> None:
        (self.packages / f"{name}.py").write_text(text)

    def entry_point(self, value: str) -> None:
        folder = self.packages / "zenith-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: zenith\nVersion: 1\n")
        (folder / "entry_points.txt").write_text(f"[mailserver.plugins]\nzenith = {value}\n")


class Discovery(WithPluginFolder):
    def named(self, name: str) -> Any:
        return discover().factory("filter", name)

    def test_a_public_object_of_a_plugin_module_is_found(self) -> None:
        self.module("zenith_plugin", FACTORY.format(name="zenith", public="zenith"))
        self.assertEqual(self.named("zenith").name, "zenith")

    def test_a_private_object_is_not(self) -> None:
        self.module("zenith_plugin", FACTORY.format(name="zenith", public="_zenith"))
        self.assertRaises(UnknownComponent, self.named, "zenith")

    def test_an_entry_point_may_name_the_factory(self) -> None:
        self.package("zenith_package", FACTORY.format(name="zenith", public="factory"))
        self.entry_point("zenith_package:factory")
        (found,) = [found for found in discover().found if found.name == "zenith" and ":" in found.source]
        self.assertEqual(found.source, "zenith: zenith = zenith_package:factory")

    def test_an_entry_point_may_name_a_module(self) -> None:
        self.package("zenith_package", FACTORY.format(name="zenith", public="factory"))
        self.entry_point("zenith_package")
        self.assertEqual(self.named("zenith").name, "zenith")

    def test_an_object_that_both_ways_lead_to_is_one(self) -> None:
        self.package("zenith_package", FACTORY.format(name="zenith", public="factory"))
        self.module("zenith_plugin", "from zenith_package import factory")
        self.entry_point("zenith_package:factory")
        self.assertEqual(self.named("zenith").name, "zenith")

    def test_a_name_that_is_missing_is_told_with_the_tracebacks_of_broken_plugins(self) -> None:
        self.module("zenith_plugin", "import no_such_module_at_all\n")
        with self.assertRaises(UnknownComponent) as caught:
            self.named("zenith")
        words = str(caught.exception)
        self.assertIn("there is no filter component 'zenith'; known: ", words)
        self.assertIn("denylist", words)
        self.assertIn("twisted.plugins.zenith_plugin could not be used", words)
        self.assertIn("No module named 'no_such_module_at_all'", words)
        self.assertIn("line 1", words)

    def test_a_broken_plugin_that_nobody_uses_stops_nothing(self) -> None:
        self.module("zenith_plugin", "raise SystemExit(1)")
        self.assertEqual(self.named("denylist").name, "denylist")

    def test_an_entry_point_that_cannot_be_loaded_is_broken(self) -> None:
        self.entry_point("zenith_package:factory")
        (broken,) = discover().broken
        self.assertEqual(broken.source, "zenith: zenith = zenith_package:factory")
        self.assertIn("No module named 'zenith_package'", broken.why)

    def test_an_entry_point_to_the_class_in_place_of_an_instance_is_told(self) -> None:
        self.package("zenith_package", FACTORY.format(name="zenith", public="factory"))
        self.entry_point("zenith_package:Factory")
        self.assertTrue(any("must be an instance" in broken.why for broken in discover().broken))

    def test_a_factory_that_provides_what_cannot_be_configured_is_broken(self) -> None:
        self.module(
            "zenith_plugin",
            FACTORY.format(name="zenith", public="zenith").replace("provides = IPeerFilter", "provides = Options"),
        )
        (broken,) = discover().broken
        self.assertIn("provides none of the interfaces", broken.why)

    def test_a_factory_with_parts_missing_is_broken(self) -> None:
        for number, (old, new) in enumerate(
            {'summary = "Nothing."': "", 'name = "zenith"': "name = None", "def build": "def make"}.items()
        ):
            self.module(f"zenith_plugin{number}", FACTORY.format(name="zenith", public="zenith").replace(old, new))
        self.assertEqual([broken.why.count("is no IComponentFactory") for broken in discover().broken], [1, 1, 1])

    def test_nothing_is_written_beside_the_plugins(self) -> None:
        self.module("zenith_plugin", FACTORY.format(name="zenith", public="zenith"))
        discover()
        self.assertFalse((self.folder / "dropin.cache").exists())

    def test_a_plugin_of_twisteds_own_that_cannot_be_imported_is_no_matter_of_ours(self) -> None:
        self.patch(twisted.plugins, "__path__", [str(self.folder)])
        self.module("twisted_conch", "import no_such_module_at_all\n")
        with mock.patch.dict(sys.modules):
            sys.modules.pop("twisted.plugins.twisted_conch", None)  # trial looks for reporters everywhere
            self.assertEqual(discover().broken, ())

    def test_twisteds_own_plugins_are_left_out_by_name(self) -> None:
        own = {path.stem for path in Path(twisted.plugins.__file__).parent.glob("*.py")} - {
            "__init__",
            "mailserver_plugins",
        }
        self.assertEqual(own - TWISTED_OWN, set(), "Twisted has new plugin modules; naming them saves their import")


class Names(SynchronousTestCase):
    def test_filters_share_one_name_space_and_deliveries_have_another(self) -> None:
        catalogue = Catalogue([FoundPlugin(factory("one"), "a"), FoundPlugin(factory("one", IDelivery), "b")])
        self.assertEqual(catalogue.factory("filter", "one").provides, IPeerFilter)
        self.assertEqual(catalogue.factory("delivery", "one").provides, IDelivery)
        self.assertEqual(catalogue.clashes(), [])

    def test_a_name_used_twice_can_be_used_by_neither(self) -> None:
        catalogue = Catalogue([FoundPlugin(factory("one"), "here"), FoundPlugin(factory("one", ISenderFilter), "there")])
        with self.assertRaisesRegex(UnknownComponent, "used twice, by here and there"):
            catalogue.factory("filter", "one")
        self.assertEqual([name for name, _ in catalogue.clashes()], ["one"])

    def test_an_interface_that_extends_another_counts_as_it(self) -> None:
        catalogue = Catalogue([FoundPlugin(factory("quick", IBatchDelivery), "a")])
        self.assertEqual(catalogue.factory("relay", "quick").name, "quick")

    def test_a_component_of_another_kind_is_not_found(self) -> None:
        catalogue = Catalogue([FoundPlugin(factory("one", IDelivery), "a")], [BrokenPlugin("b", "because")])
        with self.assertRaisesRegex(UnknownComponent, "known: none\nThe plugin b could not be used:\nbecause"):
            catalogue.factory("filter", "one")

    def test_the_shipped_components_are_there_and_are_what_they_say(self) -> None:
        catalogue = discover()
        for section, names in {
            "accounts": ("file", "system"),
            "delivery": ("maildir", "discard"),
            "relay": ("capture", "mx", "smarthost"),
            "filter": ("denylist",),
        }.items():
            for name in names:
                shipped = catalogue.factory(section, name)
                real = shipped._real()
                verifyObject(IComponentFactory, shipped)
                verifyObject(IComponentFactory, real)
                provides = real.provides if isinstance(real.provides, tuple) else (real.provides,)
                self.assertEqual((real.name, provides), (name, shipped.provides))
                self.assertTrue(issubclass(catalogue.options_of(section, name), Options))
        self.assertEqual(set(SECTIONS), {"accounts", "router", "delivery", "relay", "filter"})


class Options_(SynchronousTestCase):
    def test_an_import_error_behind_a_lazy_factory_is_told_with_its_traceback(self) -> None:
        class Late:
            name = "late"

            @property
            def options(self) -> Any:
                import no_such_module_at_all  # type: ignore[import-not-found]

                return no_such_module_at_all

        with self.assertRaisesRegex(PluginError, "'late' cannot be imported: No module(.|\n)*Traceback"):
            options_class(Late())

    def test_options_that_are_no_options_class_are_told(self) -> None:
        self.assertRaisesRegex(PluginError, "no subclass", options_class, factory(options=dict))
        catalogue = Catalogue([FoundPlugin(factory(options=dict), "a")])
        self.assertRaisesRegex(LookupError, "no subclass", catalogue.options_of, "filter", "one")


class Building(SynchronousTestCase):
    def build(self, component: Any, provides: Any = IPeerFilter) -> Any:
        def build(self: Any, options: Any, services: Any) -> Any:
            return component() if isinstance(component, type) else component

        return build_component(factory(provides=provides, build=build), Options(), None)  # type: ignore[arg-type]

    def test_a_component_that_is_not_what_its_factory_says_is_refused(self) -> None:
        self.assertRaisesRegex(PluginError, "'one' is no IPeerFilter", self.build, object())

    def test_one_with_a_missing_or_misshapen_method_is_refused(self) -> None:
        @implementer(IPeerFilter)
        class Missing:
            pass

        @implementer(IPeerFilter)
        class Misshapen:
            def judge_peer(self) -> None:
                """Takes no peer."""

        for wrong in (Missing, Misshapen):
            self.assertRaisesRegex(PluginError, "judge_peer", self.build, wrong)

    def test_an_error_in_build_is_told_with_the_name(self) -> None:
        class Explosive:
            def __init__(self) -> None:
                raise ValueError("no fuse")

        self.assertRaisesRegex(PluginError, "'one' could not be built: ValueError.*no fuse", self.build, Explosive)

    def test_an_interface_that_cannot_be_configured_is_refused(self) -> None:
        self.assertRaisesRegex(PluginError, "none of the interfaces", self.build, object(), IResolver)


class BuildingInAnyWay(SynchronousTestCase):
    def test_whatever_building_raises_or_returns_is_told_with_the_components_name(self) -> None:
        for what, method in (RAISES | NONSENSE).items():
            if what.endswith("at once") or what.startswith(("is no coroutine", "returns")):
                with self.assertRaisesRegex(PluginError, "the component 'odd'", msg=what):
                    build_component(Odd(method), Options(), None)  # type: ignore[arg-type]


@implementer(IComponentFactory)
class Odd:
    name, summary, provides, options, api_version = "odd", "Odd.", IPeerFilter, Options, "1.0"

    def __init__(self, build: Any) -> None:
        self.build = build


class Quick(SynchronousTestCase):
    def test_listing_the_shipped_plugins_imports_none_of_them(self) -> None:
        """`twistd --help` imports the plugin module; pydantic, SQLite and cryptography would make it slow."""
        code = (
            "import sys; import twisted.plugins.mailserver_plugins; "
            "print([m for m in ('pydantic', 'apsw', 'mailserver.config', 'mailserver.delivery', 'passlib') if m in sys.modules])"
        )
        root = str(Path(__file__).parents[2])
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": root},
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((run.stdout.strip(), run.stderr), ("[]", ""))
