"""`CaptureServer` for test cases of unittest and trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mailserver.sink import CaptureServer

__all__ = ["CaptureMixin"]


class CaptureMixin:
    """Beside a `TestCase` of unittest or trial: each test has a fresh server, `self.smtp_server`, which ends with the test.

    `smtp_server_options` are the arguments of `CaptureServer`.
    """

    smtp_server_options: ClassVar[Mapping[str, Any]] = {}
    smtp_server: CaptureServer

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]  # that of the TestCase
        self.smtp_server = CaptureServer(**self.smtp_server_options)
        self.smtp_server.start()
        self.addCleanup(self.smtp_server.stop)  # type: ignore[attr-defined]
