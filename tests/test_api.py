"""`mailserver.api`: the public names are a list that is kept on purpose, each with a sentence, none of them untyped."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.interface import InterfaceClass

from mailserver import api, interfaces
from mailserver.cli.skeletons.writing import KINDS
from mailserver.plugins.catalogue import INTERFACES, SECTIONS
from tests.api_page import PAGE, page, sentence_of

# What the core keeps to itself: nobody but the server implements or uses it.
FOR_A_REASON = {
    "IComponentFactory: Any",  # `options`: each factory has a class of its own
}
CORES_OWN = {
    "AddressState", "Denial", "Denied", "DestinationState", "IAuthenticator", "IDestinations", "ILogin", "IRetrySchedule", "KeepProcess",
    "LoggedIn", "RetryTimes",
}  # fmt: skip


def untyped(name: str, node: ast.ClassDef | ast.FunctionDef) -> Iterator[str]:
    """Where `Any` stands in an annotation of what others use: fields, arguments (save what is only handed on), results."""
    members = node.body if isinstance(node, ast.ClassDef) else [node]
    for inner in members:
        annotations: list[ast.expr | None] = []
        if isinstance(inner, ast.AnnAssign):
            annotations = [inner.annotation]
        elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not (
            inner.name.startswith("_") and inner.name != "__call__"
        ):
            arguments = [*inner.args.posonlyargs, *inner.args.args, *inner.args.kwonlyargs]
            annotations = [inner.returns, *(one.annotation for one in arguments)]
        for annotation in annotations:
            if annotation is not None and any(isinstance(one, ast.Name) and one.id == "Any" for one in ast.walk(annotation)):
                yield f"{name}: {ast.unparse(annotation)}"


class PublicNames(SynchronousTestCase):
    def test_they_are_those_of_the_page_each_with_its_sentence(self) -> None:
        self.assertEqual(page(), PAGE.read_text(), "`python -m tests.api_page` writes it; is the name meant to be public?")
        self.assertEqual([name for name in api.__all__ if len(sentence_of(name)) < 6], [])

    def test_they_are_sorted_and_each_can_be_had(self) -> None:
        self.assertEqual(list(api.__all__), sorted(set(api.__all__)))
        self.assertEqual([name for name in api.__all__ if not hasattr(api, name)], [])

    def test_every_interface_is_among_them_save_the_cores_own(self) -> None:
        self.assertEqual(set(interfaces.__all__) - set(api.__all__), CORES_OWN)

    def test_nothing_that_an_author_sees_is_untyped(self) -> None:
        found: list[str] = []
        for name in api.__all__:
            thing: Any = getattr(api, name)
            module = sys.modules.get(getattr(thing, "__module__", "") or "")
            if module is None or not module.__name__.startswith("mailserver."):
                continue
            for node in ast.parse(inspect.getsource(module)).body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                    found += untyped(name, node)
        self.assertEqual([one for one in found if one not in FOR_A_REASON], [])


class Configurable(SynchronousTestCase):
    """An interface can be configured, or stands beside one that can, or is what the core lends."""

    BESIDE = {
        "IAccountFollower", "IAccountList", "ICertificateAccounts", "ICommands", "IComponent", "IComponentFactory", "ICounting", "IForgiving",
        "IHostAccounts", "IHostFinder", "IMailReader", "IMayBeMissing", "IPeriodic", "IPreparing", "IPrivilegedComponent",
        "IReloading", "IScramAccounts", "ISecretAccounts", "ISenderGrants", "ISweeping", "IUsualScramForm",
    }  # fmt: skip
    LENT = {"IQuarantine", "IRecords", "IResolver", "IStateStore", "IWaitingMail"}

    def test_every_public_interface_has_its_place(self) -> None:
        public = {name for name in api.__all__ if isinstance(getattr(api, name), InterfaceClass)}
        used = {name for name in public if any(getattr(api, name).isOrExtends(known) for known in INTERFACES)}
        self.assertEqual(public - used, self.BESIDE | self.LENT)
        self.assertEqual(used & (self.BESIDE | self.LENT), set())

    def test_every_one_that_can_be_configured_has_a_table(self) -> None:
        tables = {one for interfaces in SECTIONS.values() for one in interfaces}
        self.assertEqual(set(INTERFACES) - tables, set())

    def test_every_kind_of_plugins_new_has_a_page(self) -> None:
        pages = {path.stem for path in PAGE.parent.glob("*.md")}
        self.assertEqual(set(KINDS) - pages, {"command"})  # operations.md
