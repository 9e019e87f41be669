"""A mail server that takes every mail and delivers none: `mailserver.testing.CaptureServer` and the command `mailserver sink`."""

from mailserver.capturing.captured import CapturedMessage
from mailserver.capturing.server import CaptureServer

__all__ = ["CaptureServer", "CapturedMessage"]
