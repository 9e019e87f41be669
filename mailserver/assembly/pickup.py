"""Makes the pickup of what local programs leave in the folder."""

from __future__ import annotations

from collections.abc import Callable

from mailserver.assembly.server import Server
from mailserver.config import Configuration
from mailserver.pickup.folder import PickupFolder
from mailserver.pickup.handover import PickupParts
from mailserver.pickup.pickup import Pickup
from mailserver.pickup.user_names import UserNames, in_thread_of_its_own
from mailserver.receive.profile import Profile

__all__ = ["make_pickup"]


def make_pickup(configuration: Configuration, server: Server, profile: Callable[[], Profile]) -> Pickup:
    """The pickup, which is not started yet.  `profile` gives the one of the policy in force."""
    reactor, queue = server.reactor, server.queue
    parts = PickupParts(
        folder=PickupFolder(configuration.pickup_path, configuration.pickup.users),
        clock=reactor,
        run_in_thread=server.pools.of("pickup"),
        profile=profile,
        next_id=server.ids.next,
        is_stored=lambda id: queue.show(id).addCallback(lambda entry: entry is not None),
        user_of=UserNames(clock=reactor, begin=in_thread_of_its_own(reactor.callFromThread)).name_of,
        expire_seconds=configuration.queue.expire,
        clock_set_at=queue.clock_set_at,
    )
    return Pickup(parts)
