"""The `twistd mailserver` command and the components that come with the server."""

from twisted.application.service import ServiceMaker

from mailserver.interfaces import IPeerFilter, ISenderFilter
from mailserver.plugins import Shipped

mailserver = ServiceMaker(  # type: ignore[no-untyped-call]
    "mailserver", "mailserver.service", "A mail server: SMTP and LMTP into Maildirs.", "mailserver"
)

denylist = Shipped(
    name="denylist",
    summary="Refuses or defers peers by network or HELO name, and senders by address or domain.",
    provides=(IPeerFilter, ISenderFilter),
    target="mailserver.filters.denylist:factory",
)
