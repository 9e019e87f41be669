from __future__ import annotations

import os
import stat

from twisted.trial.unittest import SynchronousTestCase

from mailserver.observe import output
from mailserver.observe.output import LogFile, Output


class FullDisk:
    """A file whose disk is full while `is_full`."""

    def __init__(self) -> None:
        self.is_full = False
        self.written = b""

    def write(self, octets: bytes) -> None:
        if self.is_full:
            self.written += octets[:3]
            raise OSError(28, "No space left on device")
        self.written += octets


class OutputTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = FullDisk()
        self.said: list[str] = []
        self.output = Output(self.disk.write, lambda text: f"complaint {text}\n")
        self.patch(self.output, "_say_once", lambda error: self.said.append(str(error)))

    def test_a_full_disk_loses_lines_and_is_said_once_when_it_works_again(self) -> None:
        self.output.lines(["one\n"])
        self.disk.is_full = True
        self.output.lines(["two\n", "three\n"])
        self.output.lines(["four\n"])
        self.assertEqual(self.output.lines_lost, 3)
        self.assertEqual(len(self.said), 1)
        self.disk.is_full = False
        self.output.lines(["five\n"])
        self.output.lines(["six\n"])
        lines = self.disk.written.decode().split("\n")
        self.assertEqual(lines[0], "one")
        self.assertEqual([line for line in lines if line.startswith("complaint")], [lines[-4]])
        self.assertEqual(lines[-4], "complaint 3 log lines were lost: [Errno 28] No space left on device")
        self.assertEqual(lines[-3:], ["five", "six", ""])

    def test_half_a_line_does_not_join_the_next_one(self) -> None:
        self.disk.is_full = True
        self.output.lines(["torn line\n"])
        self.disk.is_full = False
        self.output.lines(["whole\n"])
        self.assertTrue(self.disk.written.startswith(b"tor\ncomplaint "))

    def test_no_lines_no_write(self) -> None:
        self.disk.is_full = True
        self.output.lines([])
        self.assertEqual(self.disk.written, b"")


class LogFileTests(SynchronousTestCase):
    def test_lines_are_appended_and_others_cannot_read_them(self) -> None:
        path = self.mktemp()
        for _ in range(2):
            file = LogFile(path)
            file.write(b"line\n")
            file.close()
        with open(path, "rb") as written:
            self.assertEqual(written.read(), b"line\nline\n")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode) & 0o007, 0)

    def test_after_a_rename_and_reopen_lines_go_to_the_new_file(self) -> None:
        path = self.mktemp()
        file = LogFile(path)
        self.addCleanup(file.close)
        file.write(b"one\n")
        os.rename(path, path + ".1")
        file.write(b"two\n")
        file.reopen()
        file.write(b"three\n")
        for name, octets in ((path + ".1", b"one\ntwo\n"), (path, b"three\n")):
            with open(name, "rb") as written:
                self.assertEqual(written.read(), octets)

    def test_where_the_new_file_cannot_be_opened_the_old_one_stays(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        file = LogFile(folder + "/log")
        self.addCleanup(file.close)
        os.rename(folder, folder + ".1")
        self.assertRaises(OSError, file.reopen)
        file.write(b"still here\n")
        with open(folder + ".1/log", "rb") as written:
            self.assertEqual(written.read(), b"still here\n")

    def test_without_a_path_it_is_standard_output_which_is_nobodys_to_close(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.patch(output, "STANDARD_OUTPUT", writing)
        file = LogFile(None)
        file.write(b"one\n")
        file.reopen()
        file.close()
        file.write(b"two\n")
        os.close(writing)
        self.assertEqual(os.read(reading, 100), b"one\ntwo\n")

    def test_words_after_the_end_are_still_written(self) -> None:
        path = self.mktemp()
        file = LogFile(path)
        file.write(b"one\n")
        file.close()
        file.close()
        file.write(b"two\n")
        file.close()
        with open(path, "rb") as written:
            self.assertEqual(written.read(), b"one\ntwo\n")
