"""Makes what submission asks of a message."""

from __future__ import annotations

from mailserver.assembly.server import Server
from mailserver.authentication.authenticator import Authenticator
from mailserver.config import Configuration
from mailserver.receive.submission.allowance import Allowance, AllowanceLimits
from mailserver.receive.submission.rules import Submission
from mailserver.receive.submission.sender_rights import SenderRights
from mailserver.routing.router import Router

__all__ = ["make_submission"]


def make_submission(
    configuration: Configuration, server: Server, router: Router, authenticator: Authenticator | None
) -> Submission:
    table = configuration.submission
    rights = None
    if table.senders == "own" and authenticator is not None:
        rights = SenderRights(
            route=router.route,
            granted_senders=authenticator.granted_senders,
            clock=server.reactor,
            aliases=table.aliases,
        )
    return Submission(
        hostname=configuration.hostname,
        clock=server.reactor,
        rights=rights,
        allowance=Allowance(
            clock=server.state,
            spaces=server.state.space,
            limits=AllowanceLimits(
                messages_per_hour=table.messages_per_hour,
                messages_per_day=table.messages_per_day,
                recipients_per_hour=table.recipients_per_hour,
                recipients_per_day=table.recipients_per_day,
                new_recipients_per_hour=table.new_recipients_per_hour,
                new_recipients_per_day=table.new_recipients_per_day,
            ),
        ),
        header_from=table.header_from,
        complete=table.complete,
        run_in_thread=server.pools.of("spool"),
    )
