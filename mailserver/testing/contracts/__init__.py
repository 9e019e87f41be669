"""What every component of a kind has to keep, as tests that a plugin's own test case inherits.

    class MboxKeepsTheContract(DeliveryContract, ComponentCase):
        def make(self):
            return self.build(factory, path=self.path)

        def stored(self):
            return messages_in(self.path)

In the order in which they are read:

* `delivery`: nothing is lost, nothing is said to be there that is not
* `directory`: nobody is found who does not exist, whatever the name
* `filter`: a verdict for every peer, envelope and message
* `follower`: what is kept of a user follows him, and nothing of others is touched
* `router`: a route, a refusal, or "not mine" for every address
* `messages`: the messages and addresses that they try
"""

from mailserver.testing.contracts.delivery import DeliveryContract
from mailserver.testing.contracts.directory import DirectoryContract
from mailserver.testing.contracts.filter import FilterContract
from mailserver.testing.contracts.follower import FollowerContract
from mailserver.testing.contracts.router import RouterContract

__all__ = ["DeliveryContract", "DirectoryContract", "FilterContract", "FollowerContract", "RouterContract"]
