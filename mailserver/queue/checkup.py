"""A look through the whole file of the queue after an end that was not in order: SQLite's own check, beside the mail."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import apsw
from twisted.logger import Logger

from mailserver.queue.store import DAMAGED, cut_off_is_damage

__all__ = ["SHORT_OCTETS", "Checkup", "fault_in"]

SHORT_OCTETS = 64 << 20  # a file of this size is looked through before the first mail is taken: some tenths of a second
FAULTS = 5  # that are named
STEPS = 20_000  # of SQLite's machine between two looks whether to stop


def fault_in(path: str, is_stopped: Callable[[], bool] = lambda: False) -> str:
    """What is wrong with the file; "" where nothing was found, or where it was stopped.  Blocks.

    Its reading transaction keeps the log from beginning anew, so the log grows meanwhile.
    """
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.set_progress_handler(is_stopped, STEPS)
        rows: list[Any] = [row for (row,) in connection.execute(f"PRAGMA quick_check({FAULTS})")]
        if rows == ["ok"] and not os.path.getsize(path + "-wal") and os.path.getsize(path) % connection.pragma("page_size"):
            rows = ["the file is cut off within a page"]
        elif rows == ["ok"] and os.path.getsize(path) < connection.pragma("page_count") * connection.pragma("page_size"):
            # The rest is in the log, or lost: where that is the end of a long row, the check takes it for zeros.
            with cut_off_is_damage():
                for _ in connection.execute("SELECT * FROM entry; SELECT * FROM attempt"):
                    pass
    except apsw.InterruptError:
        return ""
    except DAMAGED as error:
        return f"{path}: {type(error).__name__}: {error}"
    finally:
        connection.close(True)
    return "" if rows == ["ok"] else f"{path}: " + "; ".join([" ".join(str(row).split()) for row in rows])[:1000]


class Checkup:
    """Runs the check in a thread of its own.  `ended(fault)` is called in the reactor's thread, not after `stop`."""

    log = Logger()

    def __init__(self, *, path: str, call_from_thread: Callable[..., Any], ended: Callable[[str], None]) -> None:
        self._path = path
        self._call_from_thread = call_from_thread
        self._ended = ended
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="queue checkup", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """It has not come to its end: nobody knows whether the file is sound."""
        return self._thread is not None

    def stop(self) -> None:
        """Give it up where it has not ended."""
        self._stopping.set()

    def _run(self) -> None:
        try:
            fault = fault_in(self._path, self._stopping.is_set)
        except Exception as error:  # noqa: BLE001  a disk that cannot be read, say: the store finds out for itself
            self._call_from_thread(self.log.error, "the queue's file could not be checked: {why}", why=error)
        else:
            self._call_from_thread(self._tell, fault)

    def _tell(self, fault: str) -> None:
        if not self._stopping.is_set():
            self._thread = None
            self._ended(fault)
