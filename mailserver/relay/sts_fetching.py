"""Fetches the MTA-STS policy of a domain from its policy host (RFC 8461 section 3.3)."""

from __future__ import annotations

from collections.abc import Callable

from mailserver.interfaces import Fetch
from mailserver.mail.fetched import FetchFailed, Unverified
from mailserver.trust.mta_sts import (
    FETCH_ERROR,
    POLICY_INVALID,
    WEBPKI_INVALID,
    STSFault,
    STSPolicy,
    parse_policy,
    policy_url,
)

__all__ = ["PolicyFetching", "PolicyNotFetched"]

MEDIA_TYPE = "text/plain"
DETAIL_CHARACTERS = 300


class PolicyNotFetched(Exception):
    """There is no policy to be had now.  `why` is the failure of RFC 8460 section 4.3.2.2, `detail` is for people."""

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(detail)
        self.why = why
        self.detail = "".join([one if one.isprintable() else "?" for one in detail[:DETAIL_CHARACTERS]])


class PolicyFetching:
    """`fetch` verifies the certificate for the host's name, keeps away from networks that are not public, follows no redirect,
    and has bounds on octets and time.  `url` says where the policy of a domain stands.
    """

    def __init__(self, fetch: Fetch, *, url: Callable[[str], str] = policy_url) -> None:
        self._fetch = fetch
        self._url = url

    async def policy(self, domain: str, id: str) -> STSPolicy:
        """The policy of the domain, whose TXT record has this id.  Raises `PolicyNotFetched`."""
        try:
            found = await self._fetch(self._url(domain), accept=MEDIA_TYPE)
        except Unverified as error:
            raise PolicyNotFetched(WEBPKI_INVALID, str(error)) from error
        except FetchFailed as error:
            raise PolicyNotFetched(FETCH_ERROR, str(error)) from error
        if found.status != 200:
            what = "a redirect, which is not followed" if 300 <= found.status < 400 else "no policy"
            raise PolicyNotFetched(FETCH_ERROR, f"the policy host answers {found.status}: {what}")
        if found.content_type != MEDIA_TYPE:
            kind = found.content_type or "no media type"
            raise PolicyNotFetched(FETCH_ERROR, f"the policy host gives {kind}, not {MEDIA_TYPE}")
        try:
            return parse_policy(found.body, id=id)
        except STSFault as fault:
            raise PolicyNotFetched(POLICY_INVALID, f"the policy cannot be read: {fault}") from fault
