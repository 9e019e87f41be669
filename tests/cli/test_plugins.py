"""``mailserver plugins``: what there is, and what is wrong with it."""

from __future__ import annotations

from types import SimpleNamespace

from mailserver.cli import plugins as command
from mailserver.interfaces import IDelivery, IPeerFilter
from mailserver.plugins.catalogue import BrokenPlugin, Catalogue, FoundPlugin, Shipped, discover
from tests.cli.support import CommandCase, run
from twisted.plugins import mailserver_plugins


class Plugins(CommandCase):
    def catalogue(self, *found: FoundPlugin, broken: tuple[BrokenPlugin, ...] = ()) -> None:
        self.patch(command, "discover", lambda: Catalogue([*discover().found, *found], broken))

    def test_the_shipped_ones_are_listed(self) -> None:
        self.catalogue()
        said = run("plugins")
        self.assertEqual((said.code, said.err), (0, ""))
        self.assertRegex(
            said.out, r"(?m)^denylist +1[.][0-9]+ +IPeerFilter, ISenderFilter +twisted.plugins.mailserver_plugins +Refuses"
        )
        names = [one["name"] for one in run("plugins", "--json").json["components"]]
        shipped = {one.name for one in vars(mailserver_plugins).values() if isinstance(one, Shipped)}
        self.assertEqual(set(names), shipped)
        self.assertLess({"file", "maildir", "mx", "denylist", "scores"}, shipped)

    def test_all_is_well_with_the_shipped_ones(self) -> None:
        self.catalogue()
        said = run("plugins", "check")
        self.assertEqual(said.code, 0, said.out)
        self.assertEqual({line.split()[0] for line in said.out.splitlines()}, {"ok"})

    def test_an_import_error_is_told_with_its_traceback(self) -> None:
        self.catalogue(broken=(BrokenPlugin("twisted.plugins.acme", "Traceback …\nImportError: no acme\n"),))
        said = run("plugins", "check")
        self.assertEqual(said.code, 1)
        self.assertIn("twisted.plugins.acme:\nTraceback …\nImportError: no acme\n", said.out)
        listed = run("plugins")
        self.assertEqual(listed.code, 1)
        self.assertIn("1 plugin(s) could not be used", listed.out)

    def test_names_used_twice_and_options_that_are_none_are_told(self) -> None:
        twice = SimpleNamespace(name="denylist", summary="", provides=IPeerFilter, options=dict)
        other = SimpleNamespace(name="denylist", summary="", provides=IDelivery, options=dict)
        self.catalogue(FoundPlugin(twice, "acme: x"), FoundPlugin(other, "acme: y"))
        said = run("plugins", "check", "--json")
        self.assertEqual(said.code, 1)
        told = "\n".join(fault["why"] for fault in said.json["faults"])
        self.assertIn("'denylist' is used twice, by twisted.plugins.mailserver_plugins and acme: x", told)
        self.assertNotIn("acme: y", told)
        self.assertEqual(told.count("no subclass of mailserver.config.Options"), 2)

    def test_a_new_one_says_what_to_do_next(self) -> None:
        said = run("plugins", "new", "no-ads", "--directory", str(self.folder))
        self.assertEqual(said.code, 0)
        self.assertTrue((self.folder / "mailserver-no-ads" / "mailserver_no_ads" / "__init__.py").exists())
        self.assertIn("pip install", said.out)
        made = run("plugins", "new", "no-news", "--directory", str(self.folder), "--json").json
        self.assertEqual(made["directory"], str(self.folder / "mailserver-no-news"))
        for file in made["files"]:
            self.assertTrue((self.folder / "mailserver-no-news" / file).is_file(), file)
        again = run("plugins", "new", "no-ads", "--directory", str(self.folder))
        self.assertEqual(again.code, 1)
        self.assertIn("is there already", again.err)
