"""One order at a CA, from its beginning, or from wherever it was left, to the certificate (RFC 8555 section 7.4).  Blocks."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from mailserver.acme.allowance import GivenUp
from mailserver.acme.authority import Authority, IssueFailed, certificate_id_of, error_code
from mailserver.acme.challenge import ChallengeAnswers, ShownChallenge
from mailserver.tls.identity import extension_of
from mailserver.tls.issued import spki_of
from mailserver.transport.certificate_faults import UNREADABLE

__all__ = ["WantedCertificate", "obtain"]

POLL_LEAST, POLL_MOST = 1.0, 30.0
POLLS_MOST = 200
CHAIN_MOST = 10


@dataclass(frozen=True, slots=True)
class WantedCertificate:
    """What is ordered: for these names (A-labels), with this key, in the place of `replaced` where there is one."""

    names: tuple[str, ...]
    key: Any
    profile: str = ""
    replaced: x509.Certificate | None = None


def obtain(
    authority: Authority,
    wanted: WantedCertificate,
    left: Mapping[str, Any],
    keep: Callable[[dict[str, Any]], None],
    answers: ChallengeAnswers,
) -> str:
    """The chain, PEM, the certificate first.

    `left` is an order that was begun ({} where there is none), and `keep` keeps it.  Raises `IssueFailed`, `GivenUp`, OSError.
    """
    url, order = _begun(authority, wanted, left, keep)
    if order["status"] == "pending":
        _show(authority, order, answers)
        order = _until(authority, url, ("pending",))
    if order["status"] == "ready":
        try:
            authority.finalize(_url(order, "finalize"), csr_of(wanted))
        except IssueFailed as failed:
            # The answer may have been lost: what the order says now counts.
            order, _ = authority.fetch(url)
            if not isinstance(order, dict) or order.get("status") not in ("processing", "valid"):
                raise failed
        order = _until(authority, url, ("processing", "ready"))
    if order["status"] == "processing":
        order = _until(authority, url, ("processing",))
    if order["status"] != "valid":
        keep({})
        raise IssueFailed(f"the order is {order['status']}: {_error_of(order)}")
    _, text = authority.fetch(_url(order, "certificate"))
    try:
        return checked_chain(text, wanted)
    except IssueFailed:
        keep({})
        raise


def _begun(
    authority: Authority, wanted: WantedCertificate, left: Mapping[str, Any], keep: Callable[[dict[str, Any]], None]
) -> tuple[str, dict[str, Any]]:
    """The order that was left, where it is the one that is wanted and can go on; else another one."""
    spki = spki_of(wanted.key.public_key())
    mark = {"directory": authority.url, "names": sorted(wanted.names), "spki": spki, "profile": wanted.profile}
    if left and {name: left.get(name) for name in mark} == mark:
        try:
            order, _ = authority.fetch(str(left.get("url", "")))
            if isinstance(order, dict) and order.get("status") in ("pending", "ready", "processing", "valid"):
                return str(left["url"]), order
        except IssueFailed as failed:
            if failed.retry_seconds is not None:
                raise
    replaces = "" if wanted.replaced is None else certificate_id_of(wanted.replaced)
    url, order = authority.new_order(list(wanted.names), wanted.profile, replaces)
    keep(mark | {"url": url})
    return url, _order(order)


def _order(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict) or not isinstance(found.get("status"), str):
        raise IssueFailed("the CA's answer is no order")
    return found


def _show(authority: Authority, order: Mapping[str, Any], answers: ChallengeAnswers) -> None:
    """Show for each name what the CA asks for, let it look, wait for what it says."""
    shown: list[ShownChallenge] = []
    pending: list[tuple[str, str, str]] = []  # of an authorization: its URL, its name, the URL of the challenge
    for url in order.get("authorizations") or ():
        authorization = _authorization(authority, url)
        name = str(authorization["identifier"]["value"])
        if authorization["status"] == "valid":
            continue
        if authorization["status"] != "pending":
            raise IssueFailed(f"{name}: its authorization is {authorization['status']}", names=(name,))
        found = next((one for one in authorization["challenges"] if one.get("type") == answers.kind), None)
        if found is None:
            kinds = ", ".join([str(one.get("type")) for one in authorization["challenges"]])
            raise IssueFailed(f"{name}: the CA offers no {answers.kind} for it, but {kinds}", names=(name,))
        challenge = _challenge(authority, answers.kind, name, found)
        shown.append(challenge)
        pending.append((url, name, _url(found, "url")))
    try:
        answers.show(shown)
        for _, _, challenge_url in pending:
            authority.accept(challenge_url)
        failed = [fault for url, name, _ in pending if (fault := _validated(authority, url, name))]
    finally:
        answers.withdraw(shown)
    if failed:
        raise IssueFailed("; ".join([words for _, words in failed]), names=tuple([name for name, _ in failed]))


def _challenge(authority: Authority, kind: str, name: str, found: Mapping[str, Any]) -> ShownChallenge:
    token = str(found.get("token", ""))
    # RFC 8555 section 8: base64url, of 128 bits at least.  It becomes a part of a path.
    if not 22 <= len(token) <= 200 or not all(one.isascii() and (one.isalnum() or one in "-_") for one in token):
        raise IssueFailed("the CA's token is not base64url")
    return ShownChallenge(kind, name, token, authority.key_authorization(token))


def _authorization(authority: Authority, url: Any) -> dict[str, Any]:
    found, _ = authority.fetch(str(url))
    try:
        if isinstance(found["challenges"], list) and isinstance(found["status"], str) and found["identifier"]["value"]:
            return dict(found)
    except (TypeError, KeyError):
        pass
    raise IssueFailed("the CA's answer is no authorization")


def _validated(authority: Authority, url: str, name: str) -> tuple[str, str] | None:
    """Wait until the CA has looked.  The name and why it is not ours; None where it is."""
    for _ in range(POLLS_MOST):
        found = _authorization(authority, url)
        if found["status"] == "valid":
            return None
        if found["status"] != "pending":
            faults = [_error_of(one) for one in found["challenges"] if isinstance(one, dict) and one.get("error")]
            return name, f"{name}: {'; '.join(faults) or found['status']}"
        _pause(authority)
    raise GivenUp(f"{name}: its authorization stays pending")


def _until(authority: Authority, url: str, states: Sequence[str]) -> dict[str, Any]:
    """The order, once it is in none of these states."""
    for _ in range(POLLS_MOST):
        order = _order(authority.fetch(url)[0])
        if order["status"] not in states:
            return order
        _pause(authority)
    raise GivenUp(f"the order stays {order['status']}")


def _pause(authority: Authority) -> None:
    authority.allowance.wait(min(POLL_MOST, max(POLL_LEAST, authority.retry_seconds or 0.0)))


def _url(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise IssueFailed(f"the CA's answer has no {name}")
    return value


def _error_of(found: Mapping[str, Any]) -> str:
    error = found.get("error")
    if not isinstance(error, Mapping):
        return "the CA says no more"
    return f"{error_code(error.get('type', ''))}: {error.get('detail', '')}"


def csr_of(wanted: WantedCertificate) -> x509.CertificateSigningRequest:
    """Without a subject: the names are in the subjectAltName."""
    names = x509.SubjectAlternativeName([x509.DNSName(one) for one in wanted.names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    return builder.sign(wanted.key, hashes.SHA256())


def checked_chain(text: str, wanted: WantedCertificate) -> str:
    """What the CA has issued, as we put it down: ours, for our key and our names, and nothing else.  Raises `IssueFailed`."""
    try:
        chain = x509.load_pem_x509_certificates(text.encode("utf-8"))
    except UNREADABLE as error:
        raise IssueFailed(f"what the CA has issued is no certificate: {error}") from error
    leaf = chain[0]
    if spki_of(leaf.public_key()) != spki_of(wanted.key.public_key()):
        raise IssueFailed("the CA has issued a certificate for another key")
    found = extension_of(leaf, x509.SubjectAlternativeName)
    names = set() if found is None else {one.lower() for one in found.get_values_for_type(x509.DNSName)}
    if missing := sorted(set(wanted.names) - names):
        raise IssueFailed(f"the CA has issued a certificate without {', '.join(missing)}")
    if leaf.not_valid_after_utc <= datetime.datetime.now(datetime.UTC):
        end = f"{leaf.not_valid_after_utc:%Y-%m-%d}"
        raise IssueFailed(f"the CA has issued a certificate that has expired, {end}: is our clock right?")
    pem = serialization.Encoding.PEM
    return "".join([one.public_bytes(pem).decode("ascii") for one in chain[:CHAIN_MOST]])
