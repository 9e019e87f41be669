"""docs/plugins/heavy-work.md: the numbers are the server's, and its example works with a real process."""

from __future__ import annotations

import importlib
import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from mailserver.interfaces import Services
from mailserver.mail.answers import Pass, Quarantine
from mailserver.mail.content import Content
from mailserver.processes import job_format, jobs
from mailserver.processes.jobs import JobProcesses
from tests.documents import blocks, page_text


class HeavyWork(TestCase):
    page = page_text("plugins/heavy-work.md")

    async def test_the_example_finds_a_program_in_a_process_of_its_own(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "heavy_work_page.py").write_text("\n".join(blocks(self.page, "python")))
        self.patch(sys, "path", [str(folder), *sys.path])
        module: Any = importlib.import_module("heavy_work_page")
        self.addCleanup(sys.modules.pop, "heavy_work_page")
        processes = JobProcesses("archives", reactor=reactor, version=str, memory_octets=lambda: 1 << 30)
        self.addCleanup(processes.stop)
        nothing: Any = None
        services = Services(nothing, nothing, nothing, nothing, "mx.example.org", "/", "/", run_in_process=processes.run)
        component = module.archives.build(module.ArchiveOptions(), services)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("bill.exe", b"")
        for octets, verdict in (
            (packed.getvalue(), Quarantine("a.zip: bill.exe")),
            (b"no archive", Quarantine("an archive that cannot be read")),
        ):
            mail = Content.of(b"Content-Type: application/zip; name=a.zip\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + octets)
            self.assertEqual(await component.judge_content(nothing, mail), verdict)
        self.assertEqual(await component.judge_content(nothing, Content.of(b"\r\n\r\n")), Pass())
        [process] = cast(Any, processes)._idle
        self.assertNotEqual(process.program.pid, os.getpid())

    def test_the_numbers_are_those_of_the_server(self) -> None:
        for words, figure, value in (
            ("A component has two, begun", jobs.PROCESSES, 2),
            ("after five minutes without one", jobs.IDLE_SECONDS, 300),
            ("| a hundred calls wait |", jobs.CALLS_WAITING, 100),
            ("| four processes were killed", jobs.ENDING_MOST, 4),
            ("8 MiB at most", job_format.RESULT_OCTETS, 8 << 20),
        ):
            self.assertIn(words, self.page)
            self.assertEqual(figure, value)
