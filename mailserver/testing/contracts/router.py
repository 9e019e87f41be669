"""A route, a refusal, or "not mine" for every address."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no annotations)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailserver.interfaces import IComponent
from mailserver.mail.address import Address
from mailserver.mail.answers import Local, NotMine, Refused, Route
from mailserver.testing.contracts.messages import ADDRESSES

if TYPE_CHECKING:
    from mailserver.testing.case import ComponentCase as Case
else:
    Case = object

__all__ = ["RouterContract"]


class RouterContract(Case):
    """For a router.  Beside `ComponentCase`; only `make` has to be written.

    `known` is an address that `make` knows.
    """

    known = "user@example.org"

    def make(self) -> Any:
        """The component, fresh."""
        raise NotImplementedError("a contract's test case says what it tests: def make(self)")

    async def started(self) -> Any:
        """The component, started as the server does it, and stopped at the test's end."""
        component = self.make()
        if IComponent.providedBy(component):
            await component.start()
            self.addCleanup(component.stop)
        return component

    async def test_an_address_that_it_knows_has_routes(self) -> None:
        """At least one; and the same ones when it is asked again."""
        component = await self.started()
        routes = await component.route(Address.parse(self.known, utf8=True))
        self._assert_routes(routes, self.known)
        self.assertNotIsInstance(routes[0], Refused)
        self.assertEqual(list(routes), list(await component.route(Address.parse(self.known, utf8=True))))

    async def test_every_address_has_an_answer(self) -> None:
        """Whatever its form."""
        component = await self.started()
        for address in ADDRESSES:
            self._assert_routes(await component.route(address), str(address))

    def _assert_routes(self, routes: Any, about: str) -> None:
        if isinstance(routes, NotMine):
            return
        self.assertIsInstance(routes, list | tuple, f"{about}: {routes!r} is no sequence of routes")
        self.assertTrue(routes, f"{about}: no route at all, not even a refusal")
        for route in routes:
            self.assertIsInstance(route, Route, f"{about}: {route!r} is no route")
            if isinstance(route, Refused):
                self.assertEqual(len(routes), 1, f"{about}: a refusal stands alone")
                self.assertFalse(route.reply.is_positive, f"{about}: a refusal with a positive reply")
            if isinstance(route, Local):
                for part in (route.mailbox.user, route.mailbox.domain, *route.mailbox.folder):
                    self.assertFalse(part in (".", "..") or set(part) & set("/\0"), f"{about}: {part!r} leads elsewhere")
