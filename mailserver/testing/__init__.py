"""For those who write filters and other components: test them without sockets, without a network and without waiting.
And for those whose programs send mail: a server that captures it.

    class Greeting(FilterCase):
        def test_a_peer_without_a_name_is_refused(self):
            polite = self.build(factory, words=["hello"])
            self.assertRefused(self.judge(polite.judge_peer(self.peer(hello=""))))

`ComponentCase` is a trial test case that makes peers, envelopes and contents and lends a component everything in `Services`;
`FilterCase` also says what a verdict was.  The contracts (`DeliveryContract` and its like) are tests that a component's own case
inherits: what every component of the kind has to keep.  `MailCase` has a whole server in memory, from the SMTP dialogue to the
delivery.  `MemoryState` and `FakeResolver` can be used on their own.

`CaptureServer` is a real server on loopback, `CaptureMixin` gives it to a test case; pytest has the fixture `smtp_server`.

In the order in which they are read:

* `case`: a trial test case for components, and one for those that judge
* `contracts/`: what every component of a kind has to keep, as tests that a plugin's own test case inherits
* `mail_case`: a trial test case with a whole server in memory
* `memory/`: that server: the server's own policy, with a queue, accounts, mailboxes and other hosts in memory
* `golden`: transcripts that a file keeps
* `verbs`: what both stores in memory do with each call: let it fail, tell who forgot to await it
* `state`: an `IStateStore` in memory
* `records`: an `IRecords` in memory
* `quarantine`: an `IQuarantine` in memory
* `waiting_mail`: an `IWaitingMail` that keeps what a component has ordered
* `fetch`: a `Fetch` that answers with the pages of the test
* `sending`: a `Send` that keeps what a component has sent
* `resolver`: an `IResolver` that knows what the test has told it
* `strategies`: hypothesis strategies for addresses, envelopes and messages
* `capture_case`: the capture server for test cases of unittest and trial
"""

from mailserver.sink import CapturedMessage, CaptureServer
from mailserver.testing.capture_case import CaptureMixin
from mailserver.testing.case import ComponentCase, FilterCase
from mailserver.testing.contracts import (
    DeliveryContract,
    DirectoryContract,
    FilterContract,
    FollowerContract,
    RouterContract,
)
from mailserver.testing.mail_case import MailCase
from mailserver.testing.memory.dialogue import Heard, SentMail, SMTPDialogue
from mailserver.testing.resolver import FakeResolver
from mailserver.testing.state import MemoryState

__all__ = [
    "CaptureMixin",
    "CaptureServer",
    "CapturedMessage",
    "ComponentCase",
    "DeliveryContract",
    "DirectoryContract",
    "FakeResolver",
    "FilterCase",
    "FilterContract",
    "FollowerContract",
    "Heard",
    "MailCase",
    "MemoryState",
    "RouterContract",
    "SMTPDialogue",
    "SentMail",
]
