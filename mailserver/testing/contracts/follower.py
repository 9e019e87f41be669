"""What is kept of a user follows him, all of it, and nothing of others is touched."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no annotations)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailserver.interfaces import IComponent

if TYPE_CHECKING:
    from mailserver.testing.case import ComponentCase as Case
else:
    Case = object

__all__ = ["FollowerContract"]

OLD, NEW, OTHER = "alice@example.org", "smith@example.org", "bob@example.org"
RENAMED = {OLD: NEW}


class FollowerContract(Case):
    """For a component that provides `IAccountFollower`.  Beside `ComponentCase`; `make` and `keep` have to be written."""

    def make(self) -> Any:
        """The component, fresh."""
        raise NotImplementedError("a contract's test case says what it tests: def make(self)")

    async def keep(self, component: Any, account: str) -> None:
        """Let it keep something of this account."""
        raise NotImplementedError("a contract's test case says what it tests: async def keep(self, component, account)")

    async def filled(self) -> Any:
        """The component, started, with something of two users, and how much it keeps of each."""
        component = self.make()
        if IComponent.providedBy(component):
            await component.start()
            self.addCleanup(component.stop)
        for account in (OLD, OTHER):
            await self.keep(component, account)
        for account in (OLD, OTHER):
            self.assertGreater(await component.kept_of_account(account), 0, f"nothing is kept of {account}")
        return component

    async def _counts(self, component: Any) -> list[int]:
        return [await component.kept_of_account(account) for account in (OLD, NEW, OTHER)]

    async def test_all_of_a_renamed_user_follows_and_nothing_stays_under_the_old_name(self) -> None:
        """Also where each step comes twice; the other user keeps his."""
        component = await self.filled()
        old, _, other = await self._counts(component)
        for stage in ("begin", "begin", "complete"):
            await component.accounts_renamed(RENAMED, stage)
        self.assertEqual(await self._counts(component), [0, old, other])
        for stage in ("complete", "begin", "complete"):
            await component.accounts_renamed(RENAMED, stage)
        self.assertEqual(await self._counts(component), [0, old, other], "the second time")

    async def test_a_rename_that_was_taken_back_leaves_all_as_it_was(self) -> None:
        """Also where nothing was begun."""
        component = await self.filled()
        before = await self._counts(component)
        for stage in ("undo", "begin", "undo", "undo"):
            await component.accounts_renamed(RENAMED, stage)
        self.assertEqual(await self._counts(component), before)

    async def test_a_whole_domain_follows(self) -> None:
        """With all addresses in it."""
        component = await self.filled()
        old, _, other = await self._counts(component)
        for stage in ("begin", "complete"):
            await component.accounts_renamed({"@example.org": "@example.com"}, stage)
        self.assertEqual(await self._counts(component), [0, 0, 0])
        found = [await component.kept_of_account(one.replace("@example.org", "@example.com")) for one in (OLD, OTHER)]
        self.assertEqual(found, [old, other])

    async def test_of_a_removed_user_nothing_stays(self) -> None:
        """And he can be removed again; the other user keeps his."""
        component = await self.filled()
        _, _, other = await self._counts(component)
        for _ in range(2):
            await component.account_removed(OLD)
        self.assertEqual(await self._counts(component), [0, 0, other])
