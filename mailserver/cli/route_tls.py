"""What ``mailserver route ADDRESS --tls`` says: what TLS the hosts of an address must have, why, and what was seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mailserver.cli.output import age, moment, plain

__all__ = ["tls_lines"]

MODES = {
    "none": "none: it is never asked for",
    "opportunistic": "where it is offered, whatever the certificate",
    "required": "always, whatever the certificate",
    "verified": "always, with a certificate that an authority vouches for",
    "dane": "always, with a certificate that its TLSA records vouch for",
}
DIGEST_SHOWN = 16  # characters


def tls_lines(found: Mapping[str, Any]) -> Sequence[str]:
    """The lines for people; all that others have said is made fit for a terminal."""
    return list(_lines(found))


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    if "fault" in found:
        yield plain(found["fault"])
        return
    yield "hosts: known for sure (DNSSEC, or the configuration)" if found["is_authentic"] else "hosts: not secured by DNSSEC"
    yield from _policy(found["mta_sts"])
    override = found["override"]
    if override is not None:
        pin = f" {override['fingerprint'][:DIGEST_SHOWN]}…" if override["fingerprint"] else ""
        yield f"override: {override['kind']}{pin} until {moment(override['until'])}"
    for host in found["hosts"]:
        yield f"{host['rank'] + 1}. {plain(host['name'])} port {found['port']}: {' '.join(host['addresses'])}"
        for line in _host(host):
            yield f"   {line}"


def _policy(answer: Mapping[str, Any] | None) -> Iterator[str]:
    if answer is None:
        yield "MTA-STS: not asked for"
        return
    policy, why = answer["policy"], " ".join(filter(None, (answer["why"], answer["detail"])))
    if policy is None:
        yield f"MTA-STS: none{': ' + plain(why) if why else ''}"
        return
    left = "" if policy["seconds_left"] is None else f", in force for {age(policy['seconds_left'])}"
    yield f"MTA-STS: {policy['mode']} for {plain(' '.join(policy['mx']))}, id {plain(policy['id'])}{left}"
    if why:
        yield f"         it could not be renewed: {plain(why)}"


def _host(host: Mapping[str, Any]) -> Iterator[str]:
    tlsa, demand = host["tlsa"], host["demand"]
    why = f": {plain(tlsa['why'])}" if tlsa["why"] else ""
    if tlsa["records"]:
        yield f"TLSA at {plain(tlsa['base_name'])}: {', '.join(_short(one) for one in tlsa['records'])}"
    else:
        yield f"TLSA {tlsa['state']}{why}"
    if demand is None:
        final = "the message goes back" if host["barred"]["is_final"] else "mail waits"
        yield f"not used, {final}: {plain(host['barred']['why'])} ({host['barred']['outcome']})"
    else:
        because = f" ({demand['by']}{': ' + plain(demand['why']) if demand['why'] else ''})"
        yield f"TLS {MODES.get(demand['mode'], demand['mode'])}{because}"
    if not host["seen"]:
        yield "not seen since the server's start"
    for seen in host["seen"]:
        yield from _seen(seen)


def _seen(seen: Mapping[str, Any]) -> Iterator[str]:
    words = " ".join(filter(None, (seen["version"], seen["cipher"], seen["group"]))) or "in the clear"
    match = f", {plain(seen['match'])}" if seen["match"] else ""
    detail = f": {plain(seen['detail'])}" if seen["detail"] else ""
    yield f"seen {moment(seen['time'])} at {seen['address']}: {words}{match}: {seen['outcome']}{detail}"
    for certificate in seen["certificates"]:
        key, whole = certificate.get("key_sha256", ""), certificate["sha256"]
        if "subject" not in certificate:
            yield f"  a certificate that cannot be read: {plain(certificate.get('fault', ''))}"
            continue
        names = f" for {plain(' '.join(certificate['names']))}" if certificate["names"] else ""
        end, issuer = moment(certificate["not_after"]), plain(certificate["issuer"])
        yield f"  {plain(certificate['subject'])}{names}, until {end}, by {issuer}"
        yield f"    key x 1 1 {key[:DIGEST_SHOWN]}…, whole x 0 1 {whole[:DIGEST_SHOWN]}…"


def _short(record: str) -> str:
    numbers, _, data = record.rpartition(" ")
    return f"{numbers} {data[:DIGEST_SHOWN]}{'…' if len(data) > DIGEST_SHOWN else ''}"
