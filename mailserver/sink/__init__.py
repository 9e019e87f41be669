"""A mail server that takes every mail and delivers none: `mailserver.testing.CaptureServer` and the command `mailserver sink`.

In the order in which they are read:

* `server`: the server: listens on loopback, keeps each message and fails on demand
* `connection`: one connection, in a thread: socket, TLS and time
* `answers`: what the sink says to one client, without I/O
* `captured`: a message that the sink has taken
* `faults`: faults that a test orders: a refusal, a slow answer, a connection that drops
"""

from mailserver.sink.captured import CapturedMessage
from mailserver.sink.server import CaptureServer

__all__ = ["CaptureServer", "CapturedMessage"]
