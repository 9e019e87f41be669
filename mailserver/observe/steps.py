"""The steps of all roads: taken in at once, written down a little later by a thread.

`Steps.note` only appends to a bounded queue.  Four times a second the writer thread takes what is there, writes a log line for
each step and one batch into the road store, and hands the steps to the observers.  It does so in small portions with a pause
after each: a thread that runs Python for long makes the reactor wait for the interpreter lock at every system call.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from types import MappingProxyType
from typing import Any, Literal, Protocol

import apsw

from mailserver.observe.judged import FACTS
from mailserver.observe.lines import Stamps, encode_fields, json_event, json_step, text_event, text_step
from mailserver.observe.output import Output
from mailserver.observe.redaction import Redaction
from mailserver.observe.roads import RoadStore

__all__ = ["Steps"]

PORTION = 64  # steps, about half a millisecond
PAUSE_SECONDS = 0.0005
ROWS_AT_ONCE = 512  # in one statement: binding its text holds the interpreter lock
JOIN_SECONDS = 5.0


class Observer(Protocol):
    """Takes steps, and does not block (`mailserver.plugins.observing.Observing`)."""

    def take(self, steps: Sequence[Mapping[str, Any]], /) -> None: ...


class Steps:
    """Takes in steps and log events; see the module.

    `write` gets the log's octets and may raise OSError; `roads` keeps the roads; both may be None.  `form` is the form of the
    lines.  With `log_steps` False the steps are left out of the log, not out of the roads.  With `log_passes` False so are the
    steps of filters that had nothing to say.  `addresses` says how much of mail addresses is kept in both; paths below
    `mail_folders` are cut.  `observers` take the steps as they were noted.  While `waiting_max` steps wait, further
    ones are dropped and counted.  The steps named in `only_counted` are counted and not written,
    those in `only_on_roads` are written nowhere else.
    """

    def __init__(
        self,
        *,
        write: Callable[[bytes], None] | None = None,
        roads: RoadStore | None = None,
        form: Literal["text", "json"] = "text",
        log_steps: bool = True,
        log_passes: bool = True,
        addresses: Literal["full", "domain", "hash", "none"] = "full",
        mail_folders: Sequence[str] = (),
        only_counted: frozenset[str] = frozenset(),
        only_on_roads: frozenset[str] = frozenset(),
        observers: Sequence[Observer] = (),
        seconds: Callable[[], float] = time.time,
        interval_seconds: float = 0.25,
        waiting_max: int = 50_000,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """How many steps there were of each name."""
        self.meter: Callable[[str, str, Mapping[str, Any]], None] | None = None
        """Is told id, name and fields of each step at once, also of those that are dropped.  Raises nothing."""
        self.dropped = 0
        """How many steps and log events came too fast to be written."""
        self.unsaved = 0
        """How many rows of roads could not be stored."""
        self._waiting: deque[tuple[float, str | None, str, Any]] = deque()
        self._waiting_max = waiting_max
        self._only_counted = only_counted
        self._only_on_roads = only_on_roads
        self._seconds = seconds
        self._output = None if write is None else Output(write, self._complaint)
        self._roads = roads
        self._is_json = form == "json"
        self._log_steps = log_steps
        self._log_passes = log_passes
        self.redaction = Redaction(addresses, mail_folders=mail_folders)
        """How much of mail addresses is kept."""
        self._observers = tuple(observers)
        self._interval_seconds = interval_seconds
        self._stamps = Stamps()
        self._writing = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._dropped_said = 0
        self._store_trouble = ""

    # --- called from the reactor ---

    def note(self, id: str, step: str, **fields: Any) -> None:
        """Record a step of the message or connection `id`.  Each field is a str, int, float, bool, None, or a list of str.

        Never blocks and never raises.  A message's first step has the field `connection`.
        """
        self.counts[step] += 1
        if self.meter is not None:
            self.meter(id, step, fields)
        if step in self._only_counted:
            return
        if len(self._waiting) < self._waiting_max:
            self._waiting.append((self._seconds(), id, step, fields))
        else:
            self.dropped += 1

    def note_event(self, moment: float, level: str, namespace: str, text: str, traceback: str = "") -> None:
        """Record a log event that is not a step.  From any thread.  Written at once where the writer thread does not run."""
        if len(self._waiting) < self._waiting_max:
            self._waiting.append((moment, None, level, (namespace, text, traceback)))
        else:
            self.dropped += 1
        if self._thread is None and not self._writing.locked():
            self.flush()

    def observe_with(self, observers: Sequence[Observer]) -> None:
        """Replace the observers (at a reload)."""
        self._observers = tuple(observers)

    def start(self) -> None:
        """Start the writer thread.  Call it after a fork, not before."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="mailserver-log", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Write all waiting steps and stop the thread.  Waits at most some seconds for a log that blocks."""
        thread = self._thread
        if thread is None:
            return
        self._stopping.set()
        thread.join(JOIN_SECONDS)
        if thread.is_alive():
            return
        self._thread = None
        self.flush()
        if self._roads is not None:
            self._roads.close()

    def flush(self, pause_seconds: float = 0.0) -> None:
        """Write the steps that wait now.  Blocks for as long as the disk does."""
        with self._writing:
            missing = len(self._waiting)
            rows: dict[str, list[str]] = {}
            while missing > 0:
                portion = [self._waiting.popleft() for _ in range(min(missing, PORTION))]
                missing -= len(portion)
                self._write_portion(portion, rows)
                if len(rows) >= ROWS_AT_ONCE:
                    self._save(rows)
                    rows = {}
                if pause_seconds and len(self._waiting) < self._waiting_max // 2:  # rather a slow reactor than lost steps
                    time.sleep(pause_seconds)
            self._save(rows)
            self._say_what_was_dropped()

    # --- the writer thread ---

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_seconds):
            try:
                self.flush(PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001 a fault of ours costs the steps at hand, never the log from now on
                self._complain(f"steps were lost: {type(error).__name__}: {error}")

    def _write_portion(self, portion: list[tuple[float, str | None, str, Any]], rows: dict[str, list[str]]) -> None:
        lines: list[str] = []
        stamps, is_json, redaction = self._stamps, self._is_json, self.redaction
        wants_lines, wants_steps = self._output is not None, self._output is not None and self._log_steps
        wants_rows, log_passes, only_on_roads = self._roads is not None, self._log_passes, self._only_on_roads
        for moment, id, step, fields in portion:
            if id is None:
                if wants_lines:
                    lines.append(self._event_line(moment, step, *fields))
                continue
            encoded, fields = encode_fields(fields if redaction.is_full else redaction.fields(fields))
            if wants_steps and step not in only_on_roads and (log_passes or step != "filter" or not _has_passed(fields)):
                if not is_json and FACTS in fields:  # they repeat the findings for programs
                    fields = {name: value for name, value in fields.items() if name != FACTS}
                stamp = stamps(moment)
                lines.append(json_step(stamp, id, step, encoded) if is_json else text_step(stamp, id, step, fields))
            if wants_rows:
                time_of_step = repr(moment)
                part = f"[{time_of_step},{encode_basestring_ascii(step)},{encoded}]"
                if id in rows:
                    rows[id].append(part)
                else:
                    rows[id] = [time_of_step, part]
        if self._output is not None:
            self._output.lines(lines)
        if self._observers:
            self._hand_over(portion)

    def _event_line(self, moment: float, level: str, namespace: str, text: str, traceback: str = "") -> str:
        line = json_event if self._is_json else text_event
        redacted = self.redaction.text
        return line(self._stamps(moment), level, namespace, redacted(text), redacted(traceback))

    def _complaint(self, text: str) -> str:
        return self._event_line(self._seconds(), "warn", __name__, text)

    def _save(self, rows: dict[str, list[str]]) -> None:
        if self._roads is None or not rows:
            return
        batch = ",".join(
            [f"[{encode_basestring_ascii(id)},{parts[0]},[{','.join(parts[1:])}]]" for id, parts in rows.items()]
        )
        put_aside = self._roads.put_aside
        try:
            self._roads.add(f"[{batch}]", len(rows), self._seconds())
        except (apsw.Error, OSError) as error:
            self.unsaved += len(rows)
            if not self._store_trouble:
                self._store_trouble = str(error)
                self._complain(f"roads of messages cannot be stored: {error}")
        else:
            if self._store_trouble:
                self._store_trouble = ""
                self._complain(f"roads of messages are stored again; {self.unsaved} could not be since the start")
        if self._roads.put_aside != put_aside:
            self._complain(f"the store of roads was damaged; it is kept as {self._roads.put_aside}")

    def _say_what_was_dropped(self) -> None:
        dropped = self.dropped
        if dropped != self._dropped_said:
            self._complain(f"{dropped - self._dropped_said} steps came too fast to be written")
            self._dropped_said = dropped

    def _complain(self, text: str) -> None:
        if self._output is not None:
            self._output.lines([self._complaint(text)])

    # --- observers ---

    def _hand_over(self, portion: list[tuple[float, str | None, str, Any]]) -> None:
        steps = tuple(
            MappingProxyType({**_unchangeable(fields), "time": moment, "id": id, "step": step})
            for moment, id, step, fields in portion
            if id is not None and step not in self._only_on_roads
        )
        if steps:
            for observer in self._observers:
                observer.take(steps)


def _unchangeable(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """With tuples for lists: several observers share a step."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _has_passed(fields: Mapping[str, Any]) -> bool:
    """Whether the step is a filter's that had nothing to say and no error."""
    return fields.get("verdict") == "Pass" and not fields.get("error") and not fields.get("why")
