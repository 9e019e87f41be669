"""For those who write filters and other components: test them without sockets, without a network and without waiting.
And for those whose programs send mail: a server that captures it.

    class Greeting(FilterCase):
        def test_a_peer_without_a_name_is_refused(self):
            polite = self.build(factory, words=["hello"])
            self.assertRefused(self.judge(polite.judge_peer(self.peer(hello=""))))

`FilterCase` is a trial test case that makes peers, envelopes and contents, lends a component everything in `Services`, and
says what a verdict was.  `MemoryState` and `FakeResolver` can be used on their own.

`CaptureServer` is a real server on loopback, `CaptureMixin` gives it to a test case; pytest has the fixture `smtp_server`.

In the order in which they are read:

* `case`: a trial test case for components that judge
* `state`: an `IStateStore` in memory
* `resolver`: an `IResolver` that knows what the test has told it
* `capture_case`: the capture server for test cases of unittest and trial
"""

from mailserver.sink import CapturedMessage, CaptureServer
from mailserver.testing.capture_case import CaptureMixin
from mailserver.testing.case import FilterCase
from mailserver.testing.resolver import FakeResolver
from mailserver.testing.state import MemoryState

__all__ = ["CaptureMixin", "CaptureServer", "CapturedMessage", "FakeResolver", "FilterCase", "MemoryState"]
