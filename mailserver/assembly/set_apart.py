"""What becomes of copies that are not simply delivered, as the configuration says it, for the listeners and for the queue."""

from __future__ import annotations

from mailserver.config import Configuration
from mailserver.mail.known_sender import ToldSenders
from mailserver.queue.holding import HoldingPolicy
from mailserver.receive.profile import CopyPolicy

__all__ = ["copy_policy_of", "holding_of"]

TOLD = {"quarantine": ToldSenders.NOBODY, None: ToldSenders.USERS, "report": ToldSenders.KNOWN}


def copy_policy_of(configuration: Configuration) -> CopyPolicy:
    """When a message is taken."""
    policy = configuration.policy
    return CopyPolicy(told=TOLD[policy.per_recipient], holds_quarantine=policy.quarantine == "hold")


def holding_of(configuration: Configuration) -> HoldingPolicy:
    """When a copy of it is judged again."""
    policy = configuration.policy
    return HoldingPolicy(policy.held_expire, policy.quarantine == "hold", TOLD[policy.per_recipient])
