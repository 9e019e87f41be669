"""The service's own chores, without twistd: its parts are made and not started."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from twisted.application.service import Application, IServiceCollection
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, capturedLogs
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver import service as service_module
from mailserver.assembly import ports as ports_module
from mailserver.assembly import reload as reload_module
from mailserver.assembly.components import Owned
from mailserver.assembly.policy import Policy
from mailserver.config import load
from mailserver.control.server import CommandRefused, NotStarted
from mailserver.interfaces import IComponent
from mailserver.mail.address import Address
from mailserver.mail.answers import Defer, Refuse
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, Peer, Recipient
from mailserver.pickup.pickup import Pickup
from mailserver.plugins import catalogue as plugins
from mailserver.plugins.asking import Asking
from mailserver.plugins.life import StartError
from mailserver.receive.factory import ReceiveFactory
from mailserver.receive.judging import Judgement
from mailserver.service import EX_CONFIG, EX_FAILED, SWEEP_SECONDS, MailService, Options, makeService

CONFIGURATION = """
hostname = "mx.example.org"
data = "{work}/data"
[[listen]]
service = "mx"
endpoint = "tcp:0:interface=127.0.0.1"
[accounts]
use = "file"
path = "{work}/accounts.toml"
[delivery]
use = "maildir"
path = "{work}/mail/{{user}}"
[relay]
use = "none"
[domain."example.org"]
"""


class Reactor(Clock):
    """Time alone; nothing runs in threads here."""

    def callFromThread(self, work: Any, *arguments: Any) -> None:
        work(*arguments)

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.did: list[Any] = []

    def callWhenRunning(self, work: Any) -> None:
        self.did.append(work)

    def addSystemEventTrigger(self, *words: Any) -> None:
        self.did.append(words)

    def stop(self) -> None: ...


class ServiceCase(SynchronousTestCase):
    def service(self, **more: Any) -> MailService:
        path, catalogue = self.configured(), plugins.discover()
        configuration = load(path, catalogue.options_of)
        service = MailService(configuration, path=path, catalogue=catalogue, reactor=Reactor(), **more)
        self.addCleanup(lambda: service._sweeping.running and service._sweeping.stop())
        return service

    def configured(self) -> str:
        work = Path(self.mktemp()).absolute()
        os.makedirs(work / "data")
        (work / "accounts.toml").touch()
        path = work / "mailserver.toml"
        path.write_text(CONFIGURATION.format(work=work))
        return str(path)


class Twistd(dict[str, Any]):
    """What twistd has read of its own command line."""

    defaults: ClassVar = {"pidfile": "twistd.pid"}


class Typed(ServiceCase):
    def options(self, **words: Any) -> Any:
        options: Any = Options()
        options.parent = Twistd({"pidfile": Twistd.defaults["pidfile"], "nodaemon": True, "debug": False, "umask": None, **words})
        options["config"] = self.configured()
        options.postOptions()
        return options

    def test_there_is_a_pid_file_where_somebody_has_asked_for_it(self) -> None:
        self.assertEqual(self.options().parent["pidfile"], "")
        self.assertEqual(self.options(pidfile="/run/own.pid").parent["pidfile"], "/run/own.pid")

    def test_a_daemon_wants_a_file_for_its_log(self) -> None:
        self.patch(sys, "stderr", io.StringIO())
        self.assertEqual(self.assertRaises(SystemExit, self.options, nodaemon=False).code, EX_CONFIG)

    def test_a_sandbox_that_cannot_be_made_is_told(self) -> None:
        options = Options()
        options["sandbox"] = f"{self.configured()}/below-a-file"
        self.assertIn("the sandbox cannot be made", str(self.assertRaises(UsageError, options.postOptions)))

    def test_the_log_is_twistds_where_it_was_told_which(self) -> None:
        every: tuple[tuple[dict[str, Any], bool], ...] = (({}, True), ({"logfile": "x"}, False), ({"syslog": True}, False), ({"logger": "x"}, False))
        for words, own in every:
            application: Any = Application("x")  # type: ignore[no-untyped-call]
            service = makeService(self.options(**words))
            service.setServiceParent(application)
            self.assertEqual(list(IServiceCollection(application)), [service])
            self.assertIs(application.getComponent(ILogObserver) is not None, own, words)


class Start(ServiceCase):
    def test_root_has_a_process_of_its_own_where_it_is_given_up_and_only_there(self) -> None:
        for euid, uid, starts in ((0, 1000, True), (0, None, False), (0, 0, False), (1000, 1000, False)):
            service = self.service(uid=uid)
            with (
                mock.patch.object(os, "geteuid", return_value=euid),
                mock.patch.object(service_module, "make_folders"),
                mock.patch.object(service._server.processes, "start_root") as start_root,
                mock.patch.object(service._server.components, "start_privileged"),
                mock.patch.object(service._in_force.policy, "start_privileged"),
                mock.patch.object(service._in_force.ports, "bind") as bind,
            ):
                service.privilegedStartService()
            self.assertIs(start_root.called, starts, (euid, uid))
            bind.assert_called_once_with(service._in_force.configuration.listen)

    def test_who_is_not_named_stays_who_he_is(self) -> None:
        for uid, gid, owner in ((None, None, (-1, -1)), (7, None, (7, -1)), (None, 8, (-1, 8)), (7, 8, (7, 8))):
            self.assertEqual(self.service(uid=uid, gid=gid)._owner, owner)

    def starting(self, service: MailService) -> list[str]:
        """Its parts only say that they have been started; `stop` in a part's place stops the service meanwhile."""
        did: list[str] = []
        ports, server, policy = service._in_force.ports, service._server, service._in_force.policy

        def part(name: str) -> Any:
            async def start(*_: object) -> None:
                did.append(name)

            return start

        for name, where, what in (
            ("ports bound", ports, "bound"), ("server", server, "start"), ("policy", policy, "start"), ("pickup", service._pickup, "start"),
            ("ports open", ports, "open"),
        ):  # fmt: skip
            self.patch(where, what, part(name))
        self.patch(ports, "host", lambda endpoint: endpoint)
        self.patch(service._control, "start", lambda _: did.append("control"))
        self.patch(service, "_start_password_server", lambda: did.append("password server"))
        self.patch(service._systemd, "ready", did.append)
        self.patch(service_module, "settle_memory", lambda: None)
        self.patch(service_module, "look_at_privileges", lambda **_: None)
        service._sweeping.clock = service._reactor
        return did

    def look(self, service: MailService) -> Deferred[dict[str, Any]]:
        return Deferred.fromCoroutine(service._control._commands["pickup.look"]({}))  # type: ignore[arg-type]

    def test_mail_is_taken_last_and_a_person_is_answered_when_all_is_there(self) -> None:
        service = self.service()
        did = self.starting(service)
        self.failureResultOf(self.look(service), NotStarted)
        self.successResultOf(Deferred.fromCoroutine(service._start()))
        self.assertEqual(
            did, ["ports bound", "control", "server", "policy", "pickup", "password server", "ports open", "serves"]
        )
        self.assertTrue(service._sweeping.running)
        self.assertEqual(self.successResultOf(self.look(service)), {})

    def test_a_stop_during_the_start_starts_nothing_more(self) -> None:
        service = self.service()
        did = self.starting(service)

        async def start() -> None:
            did.append("policy")
            service._stops = True

        self.patch(service._in_force.policy, "start", start)
        self.successResultOf(Deferred.fromCoroutine(service._start()))
        self.assertEqual(did, ["ports bound", "control", "server", "policy"])
        self.failureResultOf(self.look(service), NotStarted)

    def test_a_start_that_fails_is_told_and_ends_the_program_with_what_it_means(self) -> None:
        for error, status in ((OSError("no port"), EX_FAILED), (StartError("no such folder"), EX_CONFIG), (ValueError("ours"), EX_FAILED)):
            service = self.service()
            with mock.patch.object(sys, "__stderr__", io.StringIO()) as said:
                service._start_failed(Failure(error))
            self.assertEqual(said.getvalue(), f"mailserver cannot start: {error}\n")
            self.assertEqual(service._reactor.did, [("after", "shutdown", os._exit, status), service._reactor.stop])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_start_that_a_stop_has_broken_off_is_no_failure(self) -> None:
        service = self.service()
        service._stops = True
        with mock.patch.object(sys, "__stderr__", io.StringIO()) as said:
            service._start_failed(Failure(OSError("no port")))
        self.assertEqual((said.getvalue(), service._reactor.did), ("", []))

    def test_a_signal_is_obeyed_in_the_reactors_own_time(self) -> None:
        service = self.service()
        taken: dict[int, Any] = {}
        did: list[str] = []
        self.patch(service._in_force, "hang_up", lambda: did.append("reload"))
        self.patch(service._server, "reopen_log", lambda: did.append("log"))
        with mock.patch.object(signal, "signal", taken.__setitem__):
            service._take_signals()
        with mock.patch.object(service._reactor, "callFromThread") as later:
            taken[signal.SIGHUP](signal.SIGHUP, None)
            taken[signal.SIGUSR1](signal.SIGUSR1, None)
        self.assertEqual(did, [])
        for (work,), _ in later.call_args_list:
            work()
        self.assertEqual(did, ["reload", "log"])

    def test_it_runs_from_its_start_on(self) -> None:
        service = self.service()

        async def start() -> None: ...

        self.patch(service, "_start", start)
        service.startService()
        self.assertTrue(service.running)

    def test_who_has_typed_the_command_reads_why_it_has_failed(self) -> None:
        screen = io.BytesIO()
        with mock.patch.object(sys, "__stderr__", io.TextIOWrapper(screen)):
            service_module._say_at_start(OSError("no port"))
            self.assertEqual(screen.getvalue(), b"mailserver cannot start: no port\n", "at once")
        with mock.patch.object(sys, "__stderr__", None):
            service_module._say_at_start(OSError("no port"))


class OfAPolicy(ServiceCase):
    def test_all_that_a_configuration_has_brought_is_counted_as_one(self) -> None:
        service = self.service()
        policy, server = service._in_force.policy, service._server
        self.assertEqual({id(one.generation) for one in (*policy.profiles.values(), policy.pickup_profile)}, {id(policy.generation)})
        server.serve_with(policy.router, policy._judging, policy.generation)
        address, asked = Address("alice", "example.org"), Deferred[Any]()
        self.patch(policy.router, "route", lambda _: asked)
        found = Deferred.fromCoroutine(server._route(address))  # for a report
        self.assertEqual(policy.generation.uses, 1)
        asked.callback(())
        self.assertEqual((self.successResultOf(found), policy.generation.uses), ((), 0))

    def test_a_copy_is_judged_again_by_the_policy_in_force_which_is_kept_as_long(self) -> None:
        server = self.service()._server
        recipient = Recipient(Address("alice", "example.org"))
        envelope = Envelope("0123456789ABCDEF", Peer("192.0.2.1", 25, "mx"), None, (recipient,), 1.0)
        found = Deferred.fromCoroutine(server._judge(envelope, Content.of(b"\r\n"), recipient))
        self.assertNoResult(found)  # at the start there is none yet
        asked: list[Deferred[Judgement]] = []
        generations = []
        for number in range(2):
            policy = self.service()._in_force.policy
            generations.append(policy.generation)

            def ask(*_: Any) -> Deferred[Judgement]:
                asked.append(Deferred())
                return asked[-1]

            judging: Any = mock.Mock(content_for=ask)
            server.serve_with(policy.router, judging, policy.generation)
            if number:
                second = Deferred.fromCoroutine(server._judge(envelope, Content.of(b"\r\n"), recipient))
        self.assertEqual([one.uses for one in generations], [1, 1])
        asked[0].callback(Judgement(Refuse("no"), ()))
        asked[1].callback(Judgement(Defer("later"), ()))
        self.assertEqual((self.successResultOf(found), self.successResultOf(second)), (Refuse("no"), Defer("later")))
        self.assertEqual([one.uses for one in generations], [0, 0])


class Sweep(ServiceCase):
    def test_whatever_one_part_meets_with_the_others_are_swept_and_all_of_them_the_next_day(self) -> None:
        service = self.service()
        swept: list[str] = []

        def stumble() -> None:
            raise RuntimeError("a fault of ours")

        async def plugin() -> int:
            swept.append("delivery")
            raise LookupError("a plugin's fault")

        async def folder() -> None:
            swept.append("pickup folder")
            raise ValueError("not even an OSError")

        self.patch(service._server.queue, "tidy", stumble)
        self.patch(service._server._lasting[0].component, "sweep", plugin)
        self.patch(service._pickup, "sweep", folder)
        service._sweeping.clock = service._reactor
        service._sweeping.start(SWEEP_SECONDS)
        service._reactor.advance(SWEEP_SECONDS)
        service._reactor.advance(SWEEP_SECONDS)
        self.assertEqual(swept, ["delivery", "pickup folder"] * 3)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 3)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 3)




@implementer(IComponent)
class Hanging:
    """Neither starts nor stops, and does not let itself be cancelled."""

    async def start(self) -> None:
        while True:
            with contextlib.suppress(CancelledError):
                await Deferred[None]()

    stop = start


def hold(service: MailService, policy: Policy, component: Any) -> Owned:
    """Let a policy have one more component."""
    owned = Owned("filter", "hanging", "hanging", None, None, component, Asking("filter hanging", service._reactor), holders=1)
    service._server.components._all.append(owned)
    policy._held.append(owned)
    return owned


class Ends(ServiceCase):
    def stopped(self, service: MailService) -> list[str]:
        """Stop it, as far as its clock needs; what has come to its end."""
        ended: list[str] = []

        async def stop(within_seconds: float) -> None:
            ended.append("queue")

        self.patch(service._server, "stop", stop)
        done = service.stopService()
        for _ in range(100):
            service._reactor.advance(1)
        self.successResultOf(done)
        return ended

    def test_the_queue_has_the_time_that_is_left(self) -> None:
        service = self.service()
        given: list[float] = []

        async def stop(within_seconds: float) -> None:
            given.append(within_seconds)

        self.patch(service._server, "stop", stop)
        service._reactor.advance(1000)
        self.successResultOf(service.stopService())
        self.assertEqual(given, [float(service._in_force.configuration.limits.shutdown_seconds)])

    def test_the_queue_has_its_end_though_a_filter_never_stops(self) -> None:
        service = self.service()
        owned = hold(service, service._in_force.policy, Hanging())
        owned.has_begun = True
        with capturedLogs() as events:
            self.assertEqual(self.stopped(service), ["queue"])
        said = [str(event["error"]) for event in events if "nobody waits for it" in event["log_format"]]
        self.assertEqual(said, ["filter hanging: stop has not ended within 20 seconds"])

    def test_the_queue_has_its_end_whatever_any_other_part_meets_with(self) -> None:
        service = self.service()

        async def raises() -> None:
            raise RuntimeError("no")

        for part in (service._control, service._pickup, service._in_force.retirement, service._in_force.policy):
            self.patch(part, "finish" if part is service._in_force.retirement else "stop", raises)
        self.assertEqual(self.stopped(service), ["queue"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 4)

    def test_a_part_that_does_not_end_is_named_but_for_peers_who_may_take_their_time(self) -> None:
        service = self.service()
        for is_told in (True, False):
            ended = Deferred.fromCoroutine(service._end("the part", Deferred[None](), 5.0, is_told=is_told))
            with capturedLogs() as events:
                service._reactor.advance(5)
            self.successResultOf(ended)
            self.assertEqual([event["what"] for event in events], ["the part"] * is_told)

    def test_a_sendmail_of_this_version_and_of_the_former_one_may_ask_for_a_look(self) -> None:
        looked: list[str] = []
        self.patch(Pickup, "look", lambda _: looked.append("look"))
        service = self.service()
        service._has_started = True
        for name in ("pickup.look", "drop.look"):
            answered = Deferred.fromCoroutine(service._control._commands[name]({}))  # type: ignore[arg-type]
            self.assertEqual(self.successResultOf(answered), {})
        self.assertEqual(looked, ["look"] * 2)

    def test_a_component_that_never_starts_is_named_and_no_reload_waits_for_it(self) -> None:
        service = self.service()
        before = service._in_force.policy

        class WithHanging(Policy):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                self._held.clear()  # the real directory reads its file in a thread
                hold(service, self, Hanging())

        with mock.patch.object(reload_module, "Policy", WithHanging):
            reloaded = Deferred.fromCoroutine(service._in_force.reload())
            for _ in range(200):
                service._reactor.advance(1)
        why = self.failureResultOf(reloaded, CommandRefused)
        self.assertIn("filter hanging: start has not ended within 120 seconds", why.getErrorMessage())
        self.assertIs(service._in_force.policy, before)
        self.assertFalse(service._in_force._is_reloading)


class Reload(ServiceCase):
    def service(self) -> MailService:
        async def start(_: Policy) -> None: ...

        self.patch(Policy, "start", start)
        return super().service()

    def test_a_stop_amid_a_reload_opens_no_port_and_leaves_nothing_of_the_old_configuration(self) -> None:
        service = self.service()
        old, asked, listened = service._in_force.policy, Deferred[list[str]](), list[Any]()
        self.patch(service._in_force.ports, "_listen", listened.append)
        self.patch(service._server.processes, "read_again", lambda: asked)
        reloaded = Deferred.fromCoroutine(service._in_force.reload())
        self.assertIsNot(service._in_force.policy, old)
        stopped: list[Policy] = []

        async def stop_policy(policy: Policy) -> None:
            stopped.append(policy)

        async def stop(within_seconds: float) -> None: ...

        self.patch(service._server, "stop", stop)
        with mock.patch.object(Policy, "stop", stop_policy):
            done = service.stopService()
        self.successResultOf(done)
        asked.callback([])
        self.successResultOf(reloaded)
        self.assertEqual(listened, [])
        self.assertEqual(stopped, [service._in_force.policy])

    def test_what_is_open_takes_up_the_new_parts_before_anything_is_waited_for(self) -> None:
        service = self.service()
        [listen] = service._in_force.configuration.listen
        factory = ReceiveFactory(service._in_force.policy.profiles[listen.endpoint], service._server.admission)
        service._in_force.ports._ports[listen.endpoint] = (Port(), factory)  # type: ignore[assignment]
        self.patch(service._server.processes, "read_again", lambda: Deferred[list[str]]())
        Deferred.fromCoroutine(service._in_force.reload())
        self.assertIs(factory.profile, service._in_force.policy.profiles[listen.endpoint])


class Port:
    def stopListening(self) -> None: ...


class SlowPort(Port):
    def __init__(self) -> None:
        self.did: list[str] = []

    def stopReading(self) -> None:
        self.did.append("waits")

    def startReading(self) -> None:
        self.did.append("accepts")


class Opening(ServiceCase):
    def test_an_endpoint_that_listens_late_accepts_nobody_before_the_queue_is_ready(self) -> None:
        service = self.service()
        ports, listening, port = service._in_force.ports, Deferred[Any](), SlowPort()
        [listen] = service._in_force.configuration.listen

        class Endpoint:
            def listen(self, factory: ReceiveFactory) -> Deferred[Any]:
                return listening

        self.patch(ports_module, "bound_here", lambda *_: None)
        self.patch(ports_module, "path_bound_here", lambda *_: Endpoint())
        ports.bind([listen])
        service.running = 1  # as twistd's startService leaves it
        bound = Deferred.fromCoroutine(ports.bound())
        self.assertNoResult(bound)
        listening.callback(port)
        self.successResultOf(bound)
        self.assertEqual(port.did, ["waits"])
        self.successResultOf(Deferred.fromCoroutine(ports.open([listen])))
        self.assertEqual(port.did, ["waits", "accepts"])
