"""All ports of the server: those of a plugin's endpoint, too, which may not do what it should."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly.ports import Ports
from mailserver.receive.throttle import Admission
from mailserver.transport.recording import Recordings


class Port:
    """Closes as the test wants it."""

    def __init__(self) -> None:
        self.closing: Any = succeed(None)
        self.closed = 0

    def stopListening(self) -> Any:
        self.closed += 1
        if isinstance(self.closing, Exception):
            raise self.closing
        return self.closing


class Ends(SynchronousTestCase):
    def setUp(self) -> None:
        self.found: dict[str, Port] = {name: Port() for name in ("one", "two", "three")}
        self.tables: Any = [SimpleNamespace(endpoint=name, takes_mail=True, service="mx") for name in self.found]
        profile: Any = SimpleNamespace(service="mx", clock=Clock())
        clock: Any = Clock()
        self.ports = Ports(
            clock,
            processes=self,  # type: ignore[arg-type]
            admission=Admission(connections=10, connections_per_network=10),
            recordings=Recordings(clock),
            profile=lambda endpoint: profile,
            monitoring=self.fail,
        )
        self.successResultOf(Deferred.fromCoroutine(self.ports.open(self.tables)))

    def endpoint(self, text: str) -> Any:
        """As the process of root has them: a port of ours for each name."""
        return SimpleNamespace(listen=lambda factory: succeed(self.found[text]))

    async def read_again(self) -> list[str]:
        return []

    def test_one_that_does_not_close_well_is_told_and_the_others_are_waited_for(self) -> None:
        slow: Deferred[None] = Deferred()
        self.found["one"].closing, self.found["two"].closing = OSError("no socket"), slow
        with capturedLogs() as told:
            closed = self.ports.stop_listening()
            self.assertNoResult(closed)
            self.assertEqual([port.closed for port in self.found.values()], [1, 1, 1])
            slow.errback(ValueError("no answer"))
            self.successResultOf(closed)
        self.assertEqual([type(event["log_failure"].value) for event in told], [OSError, ValueError])
        self.assertEqual(len(self.flushLoggedErrors(OSError, ValueError)), 2)
        self.successResultOf(self.ports.say_goodbye())

    def test_a_reload_tells_of_it_and_closes_and_opens_the_others(self) -> None:
        self.found["one"].closing = OSError("no socket")
        self.found["four"] = Port()
        wanted: Any = [self.tables[2], SimpleNamespace(endpoint="four", takes_mail=True, service="mx")]
        going = self.ports.take_up(wanted)
        faults = self.successResultOf(Deferred.fromCoroutine(self.ports.change(wanted, going)))
        self.assertEqual(faults, ["a listener does not stop: no socket"])
        self.assertEqual([port.closed for port in self.found.values()], [1, 1, 0, 0])
        self.assertEqual([one.endpoint for one in self.ports.figures()], ["three", "four"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
