"""The roads of messages as traces: ids that stay, nothing told twice and nothing lost, no word of a stranger's."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.output import Unable
from mailserver.cli.traces import follow, headers_of
from mailserver.mail.ids import IdSource
from mailserver.observe.roads import RoadStore
from mailserver.traces.export import Away, Export, Refused, SpansTaken
from mailserver.traces.ledger import Ledger, LedgerInUse
from mailserver.traces.reading import Batch, rows_behind
from mailserver.traces.spans import TraceSpan, root_span_id, spans_of, trace_id
from tests.rounds import rounds

NOW = 1795436523.0
Said = tuple[str, dict[str, Any]]


class Roads:
    """A store of roads, and an export from it to a list."""

    def __init__(self, folder: str) -> None:
        os.makedirs(folder)
        self.path, self.ledger_path = os.path.join(folder, "explain.db"), os.path.join(folder, "traces.db")
        self.store = RoadStore(self.path, retention_seconds=86_400)
        self.moment = NOW
        self.ids = IdSource(lambda: NOW)
        self.told: list[TraceSpan] = []
        self.said: list[str] = []
        self.answer: Any = lambda spans: SpansTaken()

    def add(self, *rows: tuple[str, Sequence[Said]]) -> None:
        """One batch of the writer's; each step comes a second after the one before."""
        found = []
        for id, steps in rows:
            timed = []
            for step, fields in steps:
                self.moment += 1
                timed.append([self.moment, step, fields])
            found.append([id, timed[0][0], timed])
        self.store.add(json.dumps(found), len(found), self.moment)

    def export(self, *, rows: int = 256, detail: Any = "figures") -> str:
        """All that is new; "" or why it has ended before."""

        def send(spans: Sequence[TraceSpan]) -> Any:
            answer = self.answer(spans)
            if isinstance(answer, SpansTaken):
                self.told += spans
            return answer

        ledger = Ledger(self.ledger_path)
        try:
            export = Export(path=self.path, ledger=ledger, detail=detail, send=send, say=self.said.append)
            export._rows_most = rows
            while (done := export.step()) is not None:
                if isinstance(done, Away):
                    return done.why
                export._rows_most = rows
            return ""
        finally:
            ledger.close()

    def names(self) -> list[str]:
        told, self.told = self.told, []
        return [span.name for span in told]


class Exporting(SynchronousTestCase):
    def setUp(self) -> None:
        self.roads = Roads(self.mktemp())
        self.addCleanup(self.roads.store.close)
        self.connection, self.message, self.other = (self.roads.ids.next() for _ in range(3))
        self.opening: list[Said] = [("connected", {"peer": "192.0.2.1", "service": "mx"}), ("encrypted", {"version": "TLSv1.3"})]
        self.refusal: Said = ("refused", {"connection": self.connection, "stage": "rcpt", "recipient": "x@example.org", "reply": "550 5.1.1 <x@example.org> no"})
        self.acceptance: Said = ("accepted", {"connection": self.connection, "sender": "a@b.example", "recipients": ["x@example.org"], "size": 7})

    def test_a_message_is_one_trace_whose_whole_is_told_when_it_is_over(self) -> None:
        roads = self.roads
        roads.add((self.connection, self.opening), (self.message, [("filter", {"connection": self.connection, "filter": "spf", "ms": 250.0, "verdict": "Pass"}), self.acceptance]))
        self.assertEqual(roads.export(), "")
        told = {span.name: span for span in roads.told}
        self.assertEqual(roads.names(), ["connected", "encrypted", "filter spf", "accepted"])
        self.assertEqual({span.trace for span in told.values()}, {trace_id(self.message)})
        self.assertEqual({span.parent for span in told.values()}, {root_span_id(self.message)})
        self.assertEqual(told["filter spf"].end - told["filter spf"].begin, 250_000_000)
        self.assertEqual(told["accepted"].begin // 1_000_000_000, NOW)  # which the id says
        roads.add((self.connection, [("closed", {})]), (self.message, [("deferred", {"attempt": 1, "ms": 1000, "reply": "451 4.4.1 x"})]))
        roads.add((self.message, [("deferred", {"attempt": 2, "ms": 9000}), ("delivered", {"attempt": 3, "ms": 20_000})]))
        roads.export()
        spans = {(span.name, span.attributes.get("mailserver.attempt")): span.end - span.begin for span in roads.told}
        self.assertEqual(spans, {("deferred", 1): 10**9, ("deferred", 2): 0, ("delivered", 3): 0})  # pauses are no work
        roads.names()
        roads.add((self.message, [("settled", {})]))
        roads.export()
        settled, root = roads.told
        self.assertEqual((root.name, root.span, root.parent, root.is_error), ("message", root_span_id(self.message), 0, False))
        self.assertEqual((root.begin // 10**9, root.end), (NOW, settled.end))
        self.assertEqual(root.attributes["mailserver.service"], "mx")
        self.assertEqual({name: root.attributes[f"mailserver.steps.{name}"] for name in ("deferred", "delivered")}, {"deferred": 2, "delivered": 1})

    def test_one_that_was_refused_is_over_with_its_connection_whichever_is_written_first(self) -> None:
        roads = self.roads
        roads.add((self.connection, [*self.opening, ("closed", {})]), (self.message, [self.refusal]))  # closed is written before
        roads.export()
        self.assertEqual(roads.names(), ["connected", "encrypted", "refused", "message"])
        second = roads.ids.next()
        roads.add((second, self.opening), (self.other, [("refused", {**self.refusal[1], "connection": second})]))
        roads.export()
        self.assertNotIn("message", roads.names())  # it may be accepted yet
        roads.add((second, [("closed", {})]))
        roads.export()
        self.assertEqual([(span.name, span.is_error) for span in roads.told], [("message", True)])
        roads.names()
        roads.export()
        self.assertEqual(roads.names(), [])

    def test_a_partial_refusal_does_not_end_a_message(self) -> None:
        roads = self.roads
        roads.add((self.connection, self.opening), (self.message, [self.refusal]))
        roads.export()
        roads.add((self.message, [self.acceptance]), (self.connection, [("closed", {})]))
        roads.export()
        self.assertNotIn("message", roads.names())
        roads.add((self.message, [("settled", {})]))
        roads.export()
        self.assertEqual(roads.names(), ["settled", "message"])

    def test_figures_have_no_word_of_a_strangers_and_all_has_what_the_roads_have(self) -> None:
        steps = [("connected", {"peer": "192.0.2.1", "service": "mx"}), self.refusal, self.acceptance,
            ("filter", {"connection": "C", "filter": "spf", "why": "secret", "findings": ["secret"], "facts": ["secret"], "error": "secret", "verdict": "Defer"}),
            ("delivered", {"recipient": "secret@example.org", "destination": "secret", "note": "secret", "ms": 3, "new": "secret"}),
            ("login", {"account": "secret", "method": "PLAIN"}), ("handed_over", {"user": "secret"}), ("anything", {"at_all": "secret"})]  # fmt: skip
        roads = self.roads
        roads.add((self.connection, steps[:1]), (self.message, steps[1:]))
        roads.export()
        text = repr(roads.told)
        for word in ("secret", "192.0.2.1", "example", "@"):
            self.assertNotIn(word, text)
        refused = next(span for span in roads.told if span.name == "refused")
        self.assertEqual(refused.attributes["mailserver.reply"], "550 5.1.1")
        Path(roads.ledger_path).unlink()
        roads.told.clear()
        roads.export(detail="all")
        text = repr(roads.told)
        for word in ("secret@example.org", "192.0.2.1", "<x@example.org> no", "findings"):
            self.assertIn(word, text)
        self.assertNotIn("mailserver.facts", text)

    def test_what_a_collector_does_not_take_is_told_again_with_the_same_ids(self) -> None:
        roads = self.roads
        messages = [roads.ids.next() for _ in range(5)]
        roads.add(*[(id, [("accepted", {}), ("settled", {})]) for id in messages])
        answers = [SpansTaken(), Away("gone"), SpansTaken(), SpansTaken(), Away("gone")]
        told: list[int] = []

        def answer(spans: Sequence[TraceSpan]) -> Any:
            told.extend([span.span for span in spans])
            return answers.pop(0) if answers else SpansTaken()

        roads.answer = answer
        self.assertEqual([roads.export(rows=1), roads.export(rows=1), roads.export(rows=1), roads.export()], ["gone", "gone", "", ""])
        self.assertEqual(sorted(Counter(told).values()), [1] * 9 + [2] * 6)
        self.assertEqual(len(roads.told), 15)
        self.assertEqual(len({span.span for span in roads.told}), 15)

    def test_a_span_that_is_refused_costs_no_other(self) -> None:
        roads = self.roads
        messages = [roads.ids.next() for _ in range(9)]
        roads.add(*[(id, [("accepted", {"size": number})]) for number, id in enumerate(messages)])
        roads.answer = lambda spans: Refused("no") if any(span.attributes.get("mailserver.size") == 4 for span in spans) else SpansTaken()
        self.assertEqual(roads.export(), "")
        self.assertEqual([span.attributes["mailserver.size"] for span in roads.told], [0, 1, 2, 3, 5, 6, 7, 8])
        self.assertEqual(len(roads.said), 1)
        self.assertIn(messages[4], roads.said[0])

    def test_rows_that_cannot_be_read_or_are_no_messages_cost_no_other(self) -> None:
        roads = self.roads
        roads.add(("dns example.org", [("dns", {})]), (self.message, [("accepted", {})]), (self.other, [("accepted", {})]), (self.connection, [("accepted", {})]))
        roads.store._connection.execute("UPDATE road SET steps = '[[1, 2]' WHERE id = ?", (self.message,))
        roads.store._connection.execute("UPDATE road SET steps = '[[1, 2, [3]], 4]' WHERE id = ?", (self.connection,))
        self.assertEqual(roads.export(), "")
        self.assertEqual(roads.names(), ["accepted"])
        self.assertEqual(len(roads.said), 2)

    def test_it_begins_anew_where_its_place_is_gone_and_nobody_exports_beside_it(self) -> None:
        roads = self.roads
        roads.add((self.message, [("accepted", {}), ("settled", {})]))
        roads.export()
        before = roads.told[:]
        roads.names()
        roads.store.close()
        for path in Path(roads.path).parent.glob("explain.db*"):
            path.unlink()  # as when a damaged one is put aside
        roads.moment = NOW
        roads.add((self.message, [("accepted", {}), ("settled", {})]), (self.other, [("accepted", {})]))
        roads.store._connection.execute("UPDATE road SET number = number + 50")
        roads.export()
        self.assertEqual(roads.told[:3], before)
        self.assertEqual(len(roads.told), 4)
        ledger = Ledger(roads.ledger_path)
        self.addCleanup(ledger.close)
        self.assertRaises(LedgerInUse, Ledger, roads.ledger_path)
        self.assertEqual(rows_behind(roads.path, ledger.place), (0, 0.0))

    @settings(max_examples=rounds(30), deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def test_however_the_rows_are_cut_the_same_spans_are_told_once(self, data: st.DataObject) -> None:
        """Any interleaving of writing and exporting, in batches of any size, with a collector that is away now and then."""
        roads = Roads(self.mktemp())
        connection = roads.ids.next()
        roads.add((connection, [("connected", {"service": "mx"})]))
        ends = [[("accepted", {"connection": connection})], [("delivered", {"attempt": 1, "ms": 5}), ("settled", {})]]
        messages = {roads.ids.next(): list(ends if data.draw(st.booleans()) else [[("refused", {"connection": connection})]]) for _ in range(4)}
        wanted = 4 * 2 + sum(2 if len(parts) == 2 else 0 for parts in messages.values()) + 4
        rows = {id: list(parts) for id, parts in messages.items()}
        while rows:
            id = data.draw(st.sampled_from(sorted(rows)))
            roads.add((id, rows[id].pop(0)))
            if not rows[id]:
                del rows[id]
            if data.draw(st.booleans()):
                is_away = data.draw(st.booleans())
                roads.answer = lambda spans, is_away=is_away: Away("") if is_away else SpansTaken()
                roads.export(rows=data.draw(st.integers(1, 3)))
        roads.add((connection, [("closed", {})]))
        roads.answer = lambda spans: SpansTaken()
        roads.export()
        roads.store.close()
        self.assertEqual(len(roads.told), wanted)
        self.assertEqual(len({span.span for span in roads.told}), wanted)
        self.assertEqual({span.trace for span in roads.told}, {trace_id(id) for id in messages})
        self.assertEqual(Counter(span.name for span in roads.told)["message"], 4)


class Spans(SynchronousTestCase):
    @given(st.lists(st.tuples(st.floats(0, 4e9), st.text(max_size=5), st.dictionaries(st.text(max_size=9), st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.text(), max_size=40))), max_size=4))
    @settings(max_examples=rounds(50), deadline=None)
    def test_any_steps_become_spans_that_can_be_sent(self, drawn: list[Any]) -> None:
        from mailserver.observe.roads import Step

        id = IdSource(lambda: NOW).next()
        spans = spans_of(id, [Step(moment, id, step, fields) for moment, step, fields in drawn], detail="all")
        self.assertEqual(len({span.span for span in spans}), len(drawn))
        for span in spans:
            self.assertTrue(0 <= span.begin <= span.end)
            repr(span.attributes).encode()
            self.assertTrue(all(len(repr(value)) < 40_000 for value in span.attributes.values()))


class Following(SynchronousTestCase):
    def test_it_waits_longer_and_longer_for_a_collector_and_says_so_once(self) -> None:
        answers: list[Any] = [Away("gone")] * 8 + [Batch(place=None), None, Away("gone")]  # type: ignore[arg-type]
        waited: list[float] = []
        said: list[str] = []

        def step() -> Any:
            if not answers:
                raise KeyboardInterrupt
            return answers.pop(0)

        self.assertRaises(KeyboardInterrupt, follow, step, say=said.append, sleep=waited.append)
        self.assertEqual(waited, [1, 2, 4, 8, 16, 32, 60, 60, 2, 1])
        self.assertEqual(said, ["what is new waits: gone", "it goes on", "what is new waits: gone"])

    def test_a_file_of_headers_is_read_and_never_repeated(self) -> None:
        path = Path(self.mktemp())
        path.write_text("# ours\nAuthorization: Bearer abc:d\n\nX-Scope: mail\n")
        self.assertEqual(headers_of(str(path)), {"authorization": "Bearer abc:d", "x-scope": "mail"})
        for wrong in ("secret", "a b: secret", "A: secret\x00"):
            path.write_text(wrong)
            self.assertNotIn("secret", str(self.assertRaises(Unable, headers_of, str(path))))


class Receiver(ThreadingHTTPServer):
    """A collector: what it was sent, and what it answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[Any] = []
        self.answers: list[tuple[int, str, bytes]] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


class _Request(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = ExportTraceServiceRequest.FromString(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        self.server.headers.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        status, media_type, answer = self.server.answers.pop(0) if self.server.answers else (200, "application/x-protobuf", b"")
        if (status, media_type) == (200, "application/x-protobuf"):
            self.server.requests.append(request)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class OverHTTP(SynchronousTestCase):
    """The command, to a collector that speaks OTLP."""

    def setUp(self) -> None:
        self.receiver = Receiver()
        self.addCleanup(self.receiver.server_close)
        self.addCleanup(self.receiver.shutdown)
        self.work = Path(self.mktemp()).absolute()
        self.work.mkdir()
        (self.work / "headers").write_text("Authorization: Bearer of-mine\n")
        self.roads = Roads(str(self.work / "data"))
        self.addCleanup(self.roads.store.close)
        self.configure(self.receiver.server_port)

    def configure(self, port: int, more: str = "") -> None:
        (self.work / "mailserver.toml").write_text(
            f'hostname = "mx.example.org"\ndata = "{self.work}/data"\n[[listen]]\nservice = "mx"\nendpoint = "tcp:25"\n'
            f'[accounts]\nuse = "file"\npath = "{self.work}/accounts.toml"\n[domain."example.org"]\n'
            f'[traces]\nendpoint = "http://127.0.0.1:{port}/v1/traces"\nheaders_file = "headers"\ntimeout = 1\n{more}'
        )

    def run_traces(self, *words: str, code: int) -> tuple[Any, str]:
        from contextlib import redirect_stderr, redirect_stdout
        from io import StringIO

        from mailserver.cli.command import run_command

        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            found = run_command(["traces", *words, "--config", str(self.work / "mailserver.toml"), "--json"])
        self.assertEqual(found, code, err.getvalue())
        return json.loads(out.getvalue()) if out.getvalue() else None, err.getvalue()

    def test_traces_come_by_otlp_with_headers_and_are_counted(self) -> None:
        id = self.roads.ids.next()
        self.roads.add((id, [("accepted", {"size": 7, "recipients": ["a@b.example"]}), ("failed", {"attempt": 1}), ("settled", {})]))
        self.assertEqual(self.run_traces("status", code=0)[0]["rows_waiting"], 1)
        self.assertEqual(self.run_traces("export", code=0), ({"spans": 4, "away": ""}, ""))
        (path, headers), (request,) = self.receiver.headers[0], self.receiver.requests
        self.assertEqual((path, headers["authorization"]), ("/v1/traces", "Bearer of-mine"))
        resource = {one.key: one.value.string_value for one in request.resource_spans[0].resource.attributes}
        self.assertEqual((resource["service.name"], resource["host.name"]), ("mailserver", "mx.example.org"))
        spans = {span.name: span for span in request.resource_spans[0].scope_spans[0].spans}
        self.assertEqual({span.trace_id.hex() for span in spans.values()}, {self.run_traces("id", id, code=0)[0]["trace"]})
        self.assertEqual(spans["accepted"].parent_span_id, spans["message"].span_id)
        self.assertEqual((spans["message"].status.code, spans["accepted"].status.code), (2, 0))
        self.assertEqual([one.value.int_value for one in spans["accepted"].attributes if one.key == "mailserver.size"], [7])
        self.assertEqual(self.run_traces("export", code=0)[0]["spans"], 0)
        self.assertEqual(self.run_traces("status", code=0)[0], {"exports": False, "spans": 4, "rows_waiting": 0, "oldest_seconds": 0.0})
        self.assertEqual(self.run_traces("export", "--again", code=0)[0]["spans"], 4)
        self.assertEqual(self.receiver.requests[0], self.receiver.requests[1])

    def test_what_is_no_collector_or_is_away_takes_nothing(self) -> None:
        self.roads.add((self.roads.ids.next(), [("accepted", {})]))
        for answer, words in (
            ((302, "text/html", b"moved"), "as no collector does"),
            ((200, "text/html", b"welcome"), "as no collector does"),
            ((404, "text/plain", b"nothing here"), "404: nothing here"),
            ((503, "text/plain", b"\x1b[2Jlater"), "503"),
            ((401, "text/plain", b"who are you?"), "401"),
        ):
            self.receiver.answers = [answer] * 9
            said, err = self.run_traces("export", code=75)
            self.assertIn(words, said["away"])
            self.assertNotIn("\x1b", err)
        self.receiver.answers = []
        port = self.receiver.server_port
        self.configure(1)
        self.assertEqual(self.run_traces("export", code=75)[0]["away"], "it does not answer")
        self.configure(port)
        partial = ExportTraceServiceResponse()
        partial.partial_success.rejected_spans = 1
        partial.partial_success.error_message = "too old"
        self.receiver.answers = [(200, "application/x-protobuf", partial.SerializeToString())]
        said, err = self.run_traces("export", code=0)
        self.assertEqual(said["spans"], 1)
        self.assertIn("rejected 1 spans", err)

    def test_a_collector_that_drips_is_given_up_in_its_time(self) -> None:
        import socket

        from mailserver.traces import otlp

        self.patch(otlp, "GRACE_SECONDS", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as dripping:
            self.roads.add((self.roads.ids.next(), [("accepted", {})]))
            self.configure(dripping.getsockname()[1])
            stop = threading.Event()

            def drip() -> None:
                peer, _ = dripping.accept()
                with peer:
                    peer.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                    while not stop.wait(0.2):
                        try:
                            peer.sendall(b"x")
                        except OSError:
                            return

            thread = threading.Thread(target=drip)
            thread.start()
            try:
                self.assertIn("has not answered within 1.2 seconds", self.run_traces("export", code=75)[0]["away"])
            finally:
                stop.set()
                thread.join()

    def test_without_the_extra_it_says_what_to_install_and_everything_else_works(self) -> None:
        program = ("import sys; sys.modules['opentelemetry'] = None; sys.modules['requests'] = None\n"
                   "from mailserver.cli import main; sys.exit(main())")  # fmt: skip
        done = subprocess.run([sys.executable, "-c", program, "traces", "export", "--config", str(self.work / "mailserver.toml")],
            capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
        self.assertEqual(done.returncode, 69, done.stderr)
        self.assertIn("mailserver[otel]", done.stderr)


class Redirects(SynchronousTestCase):
    def test_a_collector_leads_to_no_other_host(self) -> None:
        import requests

        from mailserver.traces.otlp import _Session

        answer = requests.Response()
        answer.status_code, answer.headers["Location"] = 307, "https://elsewhere.example/"
        self.assertEqual(requests.Session().get_redirect_target(answer), "https://elsewhere.example/")
        with _Session() as session:
            self.assertIsNone(session.get_redirect_target(answer))
