"""dns-01 (RFC 8555 section 8.4): a TXT record, put into the zone by a dynamic update (RFC 2136).  Everything blocks."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rdatatype
from twisted.logger import Logger

from mailserver.acme.allowance import GivenUp, TimeAllowance
from mailserver.acme.challenge import ShownChallenge
from mailserver.doctor.asking import SeenLive
from mailserver.doctor.messages import text_of_name
from mailserver.doctor.pushing import PushFailed, ZoneChange, primary_of, push, read_zone_key
from mailserver.doctor.seen import SeenState
from mailserver.doctor.zone_text import ZoneRecord
from mailserver.mail.dns_records import ServerAddress

__all__ = ["ZoneAnswers"]

TTL_SECONDS = 60
SHOWN_SECONDS = 180.0  # that the servers of a zone have for taking a change over from the primary
LOOK_SECONDS = 3.0
ASK_SECONDS = 10.0
FAULTS = (OSError, dns.exception.DNSException, EOFError, ValueError)


class ZoneAnswers:
    """`key_path` is the file of the key that may change the zones; `seen()` looks anew at what the servers of a zone show.

    `server` is the primary, None where the SOA record of the zone says who that is.
    """

    kind = "dns-01"
    log = Logger()

    def __init__(
        self, key_path: str, server: ServerAddress | None, seen: Callable[[], SeenLive], allowance: TimeAllowance
    ) -> None:
        self._key_path = key_path
        self._server = server
        self._seen = seen
        self._pace = allowance

    def show(self, challenges: Sequence[ShownChallenge]) -> None:
        """See `ChallengeAnswers`.  Returns when every server of the zone that answers shows them, or does not come to it."""
        self._change(challenges, puts_in=True)
        for name in dict.fromkeys(map(_name_of, challenges)):
            self._wait_for(name, {_text_of(one) for one in challenges if _name_of(one) == name})

    def withdraw(self, challenges: Sequence[ShownChallenge]) -> None:
        """See `ChallengeAnswers`."""
        try:
            self._change(challenges, puts_in=False)
        except OSError as error:
            self.log.warn("records for the CA stay in the zone: {error}", error=error)

    def _change(self, challenges: Sequence[ShownChallenge], *, puts_in: bool) -> None:
        try:
            with open(self._key_path, encoding="utf-8") as file:
                key = read_zone_key(file.read(1 << 16))
        except ValueError as error:
            raise OSError(f"{self._key_path}: {error}") from error
        faults: list[str] = []
        for name in dict.fromkeys(map(_name_of, challenges)):  # one that fails keeps none of the others
            records = tuple([ZoneRecord(name, "TXT", _text_of(one), TTL_SECONDS) for one in challenges if _name_of(one) == name])
            try:
                zone, server = self._zone(name)
                push(zone, [ZoneChange(name, "TXT", records if puts_in else (), () if puts_in else records)], key, server)
            except (PushFailed, *FAULTS) as error:
                faults.append(f"{name}: {error}")
        if faults:
            raise OSError("; ".join(faults))

    def _zone(self, name: str) -> tuple[str, ServerAddress]:
        """The zone that a name is in, and its primary server.  Raises OSError, and what dnspython raises."""
        if self._server is None:
            seen = self._seen()
            zone = seen.zone(name).name
            server = primary_of(seen, zone) if zone else None
            if server is None:
                raise OSError("the primary server of its zone could not be found: say [acme] dns_server")
            return zone, server
        query = dns.message.make_query(name, "SOA")
        query.flags = dns.flags.Flag(0)
        said = dns.query.tcp(query, self._server.host, timeout=ASK_SECONDS, port=self._server.port)
        for found in (*said.answer, *said.authority):
            if found.rdtype == dns.rdatatype.SOA:
                return text_of_name(found.name), self._server
        raise OSError(f"{self._server} does not say which zone it is in")

    def _wait_for(self, name: str, texts: set[str]) -> None:
        waited = 0.0
        while waited < SHOWN_SECONDS:
            seen = self._seen().of(name, "TXT")
            if seen.state is SeenState.FAILED:
                return  # it is not for us to tell, from here; the CA will look for itself
            if seen.state is SeenState.FOUND and texts <= set(seen.records) and not seen.differing:
                return
            try:
                self._pace.wait(LOOK_SECONDS)
            except GivenUp as error:
                raise OSError(f"the servers of the zone do not show {name}: {error}") from error
            waited += LOOK_SECONDS


def _name_of(challenge: ShownChallenge) -> str:
    return f"_acme-challenge.{challenge.host.removeprefix('*.')}"


def _text_of(challenge: ShownChallenge) -> str:
    return base64.urlsafe_b64encode(challenge.digest).rstrip(b"=").decode("ascii")
