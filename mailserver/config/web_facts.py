"""What `web` listeners say of the domains, as the whole configuration has it."""

from __future__ import annotations

from typing import Literal

from mailserver.config.endpoints import bare_endpoint, is_local, place_of
from mailserver.config.schema import Configuration
from mailserver.config.web_table import access_of

__all__ = ["policy_of", "submission_of"]


def submission_of(configuration: Configuration) -> list[tuple[str, int, Literal["implicit", "starttls"]]]:
    """Where users send, the best first: TLS from the first octet on."""
    if configuration.web.submission is not None:
        return [access_of(configuration.web.submission, "submission")]
    found: dict[tuple[str, int, Literal["implicit", "starttls"]], None] = {}
    for one in configuration.listen:
        place = place_of(bare_endpoint(one.endpoint))
        if one.service == "submission" and one.tls != "none" and place is not None and place.port and not is_local(one.endpoint):
            found[(configuration.hostname, place.port, one.tls)] = None
    return sorted(found, key=lambda one: one[2] != "implicit")


def policy_of(configuration: Configuration, domain: str) -> str:
    """The text of the MTA-STS policy that is served for a domain (A-labels; ``*.`` and a domain, too), "" where none is."""
    table = configuration.domain.get(domain) or configuration.domain.get(f"*.{domain.partition('.')[2]}")
    if table is None or table.disabled or not configuration.web_listeners:
        return ""
    web = configuration.web
    hosts = dict.fromkeys([configuration.hostname.lower(), *[one.lower() for one in web.mta_sts_hosts]])
    lines = ["version: STSv1", f"mode: {web.mta_sts}", *[f"mx: {one}" for one in hosts], f"max_age: {int(web.mta_sts_max_age)}"]
    return "".join([f"{line}\r\n" for line in lines])
