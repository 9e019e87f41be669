"""What ``mailserver check`` says of web listeners.  Changes nothing."""

from __future__ import annotations

import grp
import os
from collections.abc import Iterator

from mailserver.config import Configuration
from mailserver.config.web_facts import submission_of
from mailserver.tls import IdentityError, Pair
from mailserver.tls.identity import read_identity

__all__ = ["web_doubts", "web_faults"]


def web_faults(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """What keeps them from being served, with the key that is to blame."""
    web = configuration.web
    if not configuration.web_listeners:
        return
    if web.certificate is not None and web.key is not None and os.access(web.key, os.R_OK):
        try:
            read_identity(Pair(web.certificate, web.key))
        except IdentityError as error:
            yield "web.key" if str(error).startswith(web.key) else "web.certificate", str(error)
    if web.socket_group is not None:
        try:
            grp.getgrnam(web.socket_group)
        except KeyError:
            yield "web.socket_group", f"there is no group {web.socket_group} on this host"


def web_doubts(configuration: Configuration) -> list[str]:
    """What is not served, and what should not be."""
    listeners, web, tls = configuration.web_listeners, configuration.web, configuration.tls
    if not listeners:
        return []
    found = []
    if all(one.tls == "none" for one in listeners):
        found.append("web: no web listener has TLS: unless a proxy before it has, other servers do not fetch policies (RFC 8461)")
    if web.imap is None and web.pop3 is None:
        found.append("web: mail programs are told nothing: web.imap and web.pop3 are missing, which say where mail is read")
    elif not submission_of(configuration):
        found.append("web: mail programs are told nothing: no submission listener with TLS is open to others (web.submission)")
    mail_keys = [one for one in (tls.key, *[its.key for its in tls.name.values()]) if one is not None]
    if web.key is not None and any(os.path.realpath(one) == os.path.realpath(web.key) for one in mail_keys):
        found.append("web: web.key is the mail host's, too: the web process, which anybody may talk to, should not have that one")
    return found
