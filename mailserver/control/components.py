"""The commands about components: how they do, and those that they offer themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mailserver.control.parts import RunningServer
from mailserver.control.server import CommandRefused
from mailserver.interfaces import Clock
from mailserver.plugins.account_following import VERBS, Follower, follow
from mailserver.plugins.component_commands import Refusal, carry_out, described_command
from mailserver.plugins.failure_log import FailureLog
from mailserver.plugins.lent import Lent

__all__ = ["ComponentCommands"]


class ComponentCommands:
    """``components``, ``component.commands``, ``component.run`` and ``component.follow``."""

    def __init__(self, server: RunningServer, clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self._failures = FailureLog(clock.seconds)

    def commands(self) -> Mapping[str, Any]:
        """Name and function."""
        return {
            "components": self.components,
            "component.commands": self.described,
            "component.run": self.run,
            "component.follow": self.follow,
        }

    async def components(self, _: dict[str, Any]) -> dict[str, Any]:
        """`components` that serve, each with what is known of it, and the threads that former ones have `left_behind`.

        `newer_code`: files whose code on the disk is not what runs, by what people know them as.
        """
        register, code = self._server.register, self._server.components.code
        newer = {what: list(files) for what, files in code.changed().items()}
        return {"components": register.described(), "left_behind": dict(register.left_behind()), "newer_code": newer}

    async def described(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`name`: the `commands` of the component that is called so; `kind` is "" where there is none."""
        name = str(arguments.get("name", ""))
        found = self._called(name)
        if found is None:
            kinds = [one.kind for one in self._server.register.running() if one.name == name]
            return {"kind": kinds[-1] if kinds else "", "commands": []}
        return {"kind": found.kind, "commands": [described_command(one) for one in found.commands.values()]}

    async def run(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`name` of the component, `command`, and the command's own `arguments`: its `answer`."""
        name, command = str(arguments.get("name", "")), str(arguments.get("command", ""))
        given = arguments.get("arguments", {})
        found = self._called(name)
        if found is None or command not in found.commands or not isinstance(given, dict):
            runs = any(one.name == name for one in self._server.register.running())
            hint = "" if runs else "; a reload brings what was added to the configuration"
            raise CommandRefused(f"there is no component {name!r} with a command {command!r}{hint}")
        try:
            answer = await carry_out(
                str(found),
                found.commands[command],
                given,
                clock=self._clock,
                failures=self._failures,
                given_up=found.left.add,
            )
        except Refusal as error:
            raise CommandRefused(str(error)) from error
        return {"answer": answer}

    async def follow(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """All that follow accounts hear `verb` (`account_following.VERBS`) of `accounts`, new names by old ones.

        `followed` have done it, `failed` have not, by name and why; `kept` is what each keeps, where that was asked.
        """
        accounts, verb = arguments.get("accounts"), str(arguments.get("verb", ""))
        if verb not in VERBS or not isinstance(accounts, dict) or not all(isinstance(one, str) for one in accounts.values()):
            raise CommandRefused("that is no rename and no removal")
        found = [Follower(str(one), one.component, one.left.add) for one in self._server.register.running()]
        answer = await follow(found, verb, accounts, clock=self._clock, failures=self._failures)
        return answer.described()

    def _called(self, name: str) -> Lent | None:
        """Of two with one name that which serves since later: a reload may have the former one still at work."""
        found = [one for one in self._server.register.running() if one.name == name and one.commands]
        kinds = sorted({one.kind for one in found})
        if len(kinds) > 1:
            raise CommandRefused(f"{name!r} is the name of a {' and of a '.join(kinds)}: give one of them another name")
        return found[-1] if found else None
