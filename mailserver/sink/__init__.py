"""A mail server that takes every mail and delivers none: `mailserver.testing.CaptureServer` and the command `mailserver sink`.

In the order in which they are read:

* `server`: a mail server for the tests of programs that send mail: it listens on loopback, keeps each message and fails
  on demand
* `connection`: one connection of the capture server, in a thread of its own: the socket, TLS and the time;
  `SinkAnswers` decides
* `answers`: what the capture server says to one client, without I/O: an event of the SMTP core in, an action out
* `captured`: a message that the capture server has taken
* `faults`: faults that a test orders from the capture server: a refusal, a slow answer, a connection that drops
"""

from mailserver.sink.captured import CapturedMessage
from mailserver.sink.server import CaptureServer

__all__ = ["CaptureServer", "CapturedMessage"]
