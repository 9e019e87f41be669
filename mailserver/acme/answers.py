"""The ways in which a challenge is shown, as the thread of a try uses them (`order.ChallengeAnswers`)."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailserver.acme.allowance import TimeAllowance
from mailserver.acme.alpn_certificate import alpn_certificate
from mailserver.acme.challenge import ChallengeAnswers, ShownChallenge
from mailserver.acme.challenge_server import IChallengeServer
from mailserver.mail.durable import make_directory, replace_file

__all__ = ["ByWebListener", "FolderAnswers", "FromReactor", "Remembered"]

SECONDS = 30.0  # until the reactor has done it
TRIES, AGAIN_SECONDS = 8, 2.0


class ShowsInReactor(Protocol):
    """Who shows challenges in the reactor's thread."""

    kind: str

    async def show(self, challenges: Sequence[ShownChallenge]) -> None: ...

    async def withdraw(self, challenges: Sequence[ShownChallenge]) -> None: ...


class FromReactor:
    """`ChallengeAnswers` by one who lives in the reactor."""

    log = Logger()

    def __init__(self, shows: ShowsInReactor, call_from_thread: Callable[..., Any], allowance: TimeAllowance) -> None:
        self.kind = shows.kind
        self._shows = shows
        self._call_from_thread = call_from_thread
        self._pace = allowance

    def show(self, challenges: Sequence[ShownChallenge]) -> None:
        """See `ChallengeAnswers`."""
        self._do(self._shows.show, challenges, self._pace.left(SECONDS))

    def withdraw(self, challenges: Sequence[ShownChallenge]) -> None:
        """See `ChallengeAnswers`."""
        try:
            self._do(self._shows.withdraw, challenges, SECONDS if not self._pace.is_over else 1.0)
        except Exception:  # noqa: BLE001  # what is shown for too long does no harm
            self.log.failure("challenges may be shown still")

    def _do(self, act: Callable[[Sequence[ShownChallenge]], Any], challenges: Sequence[ShownChallenge], seconds: float) -> None:
        done, faults = threading.Event(), []

        def begin() -> None:
            doing: Deferred[Any] = Deferred.fromCoroutine(act(challenges))
            doing.addErrback(lambda failure: faults.append(failure.value)).addBoth(lambda _: done.set())

        self._call_from_thread(begin)
        if not done.wait(seconds):
            raise OSError("the challenges could not be shown in time")
        if faults:
            fault: BaseException = faults[0]
            raise fault if isinstance(fault, OSError) else OSError(f"the challenges could not be shown: {fault}") from fault


class ByWebListener:
    """By the web listener, over the server's hand-over to it.  Its process may be about to be started again."""

    def __init__(self, kind: str, web: IChallengeServer, clock: Any) -> None:
        self.kind = kind
        self._web = web
        self._clock = clock

    async def show(self, challenges: Sequence[ShownChallenge]) -> None:
        """All of them are there when it returns."""
        for tries in range(TRIES):
            try:
                for one in challenges:
                    await self._show(one)
                return
            except Exception:
                if tries == TRIES - 1:
                    raise
            await deferLater(self._clock, AGAIN_SECONDS)

    def _show(self, one: ShownChallenge) -> Deferred[None]:
        if self.kind == "http-01":
            return self._web.publish_challenge(one.host, one.token, one.key_authorization)
        made = alpn_certificate(one.host, one.digest, datetime.datetime.now(datetime.UTC))
        return self._web.change_alpn(one.host, made.certificate_der, made.key_pem)

    async def withdraw(self, challenges: Sequence[ShownChallenge]) -> None:
        """Nothing waits for it."""
        for one in challenges:
            if self.kind == "http-01":
                said = self._web.withdraw_challenge(one.host, one.token)
            else:
                said = self._web.withdraw_alpn(one.host)
            said.addErrback(lambda _: None)


class FolderAnswers:
    """http-01 by another web server, which shows what is below `folder`."""

    kind = "http-01"

    def __init__(self, folder: str) -> None:
        self._folder = os.path.join(folder, ".well-known", "acme-challenge")

    def show(self, challenges: Sequence[ShownChallenge]) -> None:
        """See `ChallengeAnswers`; the web server is somebody else, who has to be able to read it."""
        made = [self._folder, os.path.dirname(self._folder)]
        missing = [one for one in made if not os.path.isdir(one)]
        make_directory(self._folder, 0o755)
        for one in missing:
            os.chmod(one, 0o755)  # noqa: S103  # whatever our umask
        for challenge in challenges:
            path = os.path.join(self._folder, challenge.token)
            replace_file(path, challenge.key_authorization, lambda fd: os.fchmod(fd, 0o644))

    def withdraw(self, challenges: Sequence[ShownChallenge]) -> None:
        """See `ChallengeAnswers`."""
        for one in challenges:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._folder, one.token))


class Remembered:
    """Others' answers, remembered on the disk: what somebody who was killed has left shown is withdrawn by the next."""

    def __init__(self, answers: ChallengeAnswers, path: str) -> None:
        self.kind = answers.kind
        self._answers = answers
        self._path = path

    def show(self, challenges: Sequence[ShownChallenge]) -> None:
        """See `ChallengeAnswers`."""
        left = [one for one in self._left() if one.kind == self.kind]
        if left:
            self._answers.withdraw(left)
        text = json.dumps([asdict(one) for one in challenges])
        replace_file(self._path, text, lambda fd: os.fchmod(fd, 0o600))
        self._answers.show(challenges)

    def withdraw(self, challenges: Sequence[ShownChallenge]) -> None:
        """See `ChallengeAnswers`."""
        self._answers.withdraw(challenges)
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _left(self) -> list[ShownChallenge]:
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                kept = json.loads(file.read(1 << 20))
            names = ("kind", "host", "token", "key_authorization")
            found = [ShownChallenge(**{name: str(one[name]) for name in names}) for one in kept]
        except (OSError, ValueError, TypeError, KeyError):
            return []
        return [one for one in found if one.token.replace("-", "").replace("_", "").isalnum()]  # it is a file's name, too
