"""For pytest: the fixture `smtp_server`, found by itself where mailserver is installed.

    @pytest.mark.smtp_server(users={"ann": "secret"}, require_login=True)
    def test_it_logs_in(smtp_server): ...

Nothing else is imported before a test asks for it: this module is loaded by every run of pytest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mailserver.testing import CaptureServer

__all__ = ["pytest_configure", "smtp_server"]


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line(
        "markers", "smtp_server(**options): the arguments of CaptureServer for the fixture smtp_server"
    )


@pytest.fixture
def smtp_server(request: pytest.FixtureRequest) -> Iterator[CaptureServer]:
    """A mail server on loopback that captures what it is sent: mailserver.testing.CaptureServer."""
    from mailserver.testing import CaptureServer

    mark = request.node.get_closest_marker("smtp_server")
    with CaptureServer(**(mark.kwargs if mark else {})) as server:
        yield server
