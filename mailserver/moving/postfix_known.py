"""Parameters of Postfix of which nothing has to be carried over, each with its reason; and those that have no equal."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["LEFT", "SAME", "SYSTEM_CA", "verdict_on"]

SAME: Mapping[str, str] = {
    "alias_database": "what newaliases makes; there is nothing to make here",
    "append_at_myorigin": "addresses without a domain are completed for local programs alone",
    "append_dot_mydomain": "a domain without a dot is not completed",
    "biff": "nobody is told on a terminal",
    "broken_sasl_auth_clients": "AUTH= lines are for clients of the last century",
    "command_directory": "a place of Postfix's own",
    "compatibility_level": "of Postfix's own defaults",
    "config_directory": "a place of Postfix's own",
    "cyrus_sasl_config_path": "log-ins are the server's own",
    "daemon_directory": "a place of Postfix's own",
    "data_directory": "a place of Postfix's own",
    "debug_peer_level": "mailserver record shows a dialogue",
    "debugger_command": "of Postfix's own",
    "default_privs": "nothing runs as that user",
    "disable_vrfy_command": "VRFY tells nobody who exists",
    "html_directory": "a place of Postfix's own",
    "mail_name": "the greeting names the host alone",
    "mail_owner": "a user of Postfix's own",
    "mail_version": "of Postfix's own",
    "mailbox_size_limit": "of files with many messages; a Maildir has none",
    "mailq_path": "a place of Postfix's own",
    "manpage_directory": "a place of Postfix's own",
    "meta_directory": "a place of Postfix's own",
    "milter_protocol": "version 6 is spoken, and what a milter asks for",
    "newaliases_path": "a place of Postfix's own",
    "queue_directory": "a place of Postfix's own",
    "readme_directory": "a place of Postfix's own",
    "sample_directory": "a place of Postfix's own",
    "sendmail_path": "mailserver sendmail takes its place",
    "setgid_group": "a group of Postfix's own",
    "shlib_directory": "a place of Postfix's own",
    "show_user_unknown_table_name": "replies name no tables",
    "smtp_sasl_security_options": "nobody logs in anonymously, and no password goes out in the clear",
    "smtp_sasl_tls_security_options": "nobody logs in anonymously",
    "smtp_tls_loglevel": "each attempt says what TLS it had",
    "smtp_tls_note_starttls_offer": "each attempt says what TLS it had",
    "smtp_tls_session_cache_database": "sessions are resumed, from memory",
    "smtp_use_tls": "see smtp_tls_security_level",
    "smtpd_banner": "the greeting is the host's name and ESMTP",
    "smtpd_delay_reject": "refusals come at MAIL or RCPT",
    "smtpd_helo_required": "MAIL before EHLO is refused",
    "smtpd_sasl_authenticated_header": "see [privacy] received",
    "smtpd_sasl_security_options": "nobody logs in anonymously",
    "smtpd_sasl_tls_security_options": "nobody logs in anonymously",
    "smtpd_tls_auth_only": "nobody logs in without TLS",
    "smtpd_tls_dh1024_param_file": "OpenSSL chooses",
    "smtpd_tls_loglevel": "each connection says what TLS it had",
    "smtpd_tls_received_header": "the Received field says it",
    "smtpd_tls_session_cache_database": "sessions are resumed by tickets",
    "smtpd_tls_session_cache_timeout": "sessions are resumed by tickets",
    "smtputf8_enable": "SMTPUTF8 is offered",
    "strict_rfc821_envelopes": "an address stands in angle brackets",
    "swap_bangpath": "a ! never leads to another host",
    "allow_percent_hack": "a % never leads to another host",
    "tls_random_source": "OpenSSL has its own",
    "unknown_local_recipient_reject_code": "recipients that do not exist are refused with 550",
    "virtual_gid_maps": "files belong to the server's user",
    "virtual_mailbox_base": "where the mail lies now: mailserver import maildir",
    "virtual_mailbox_limit": "a Maildir has no limit",
    "virtual_minimum_uid": "files belong to the server's user",
    "virtual_uid_maps": "files belong to the server's user",
}  # fmt: skip

SYSTEM_CA = ("/etc/ssl/cert", "/etc/pki/", "/usr/share/ca-certificates/", "/usr/local/share/certs/")
OTHER_CA = ("the authorities of the system are believed", "where it is one of your own: update-ca-certificates")
FILTERS = "a [[filter]] (docs/filters.md)"
LEFT: Mapping[str, tuple[str, str]] = {
    "always_bcc": ("no copies are made of all mail", "a plugin (docs/plugins/index.md)"),
    "body_checks": ("no patterns over content", "scanners and scores: " + FILTERS),
    "bounce_queue_lifetime": ("reports are kept as long as other mail", "[queue] expire"),
    "canonical_maps": (
        "addresses in headers are not rewritten",
        "aliases for recipients; let users send as what they are",
    ),
    "content_filter": ("mail does not come back from a filter", "clamav, rspamd, spamassassin or milter: " + FILTERS),
    "header_checks": ("no patterns over headers", "scores, lists or a plugin: " + FILTERS),
    "local_recipient_maps": ("who exists is who has an account or an alias", "mailserver user add"),
    "mailbox_command": ("mail goes into Maildirs", '[delivery] use = "pipe"'),
    "mailbox_transport": ("one delivery serves all domains", "[delivery]"),
    "masquerade_domains": ("addresses are not rewritten", "let programs say their whole address"),
    "mime_header_checks": ("no patterns over headers", FILTERS),
    "mynetworks_style": ("networks are named, not found", "[relay] networks"),
    "nested_header_checks": ("no patterns over headers", FILTERS),
    "postscreen_dnsbl_sites": ("lists with weights", "filters dnsbl and scores (docs/filters.md)"),
    "proxy_interfaces": ("behind a NAT", "[dns] public_addresses"),
    "receive_override_options": ("no second way through the server", "nothing, where content_filter was the reason"),
    "recipient_bcc_maps": ("no copies are made", "an alias with both addresses"),
    "recipient_canonical_maps": ("addresses in headers are not rewritten", "an alias: mailserver alias add"),
    "relay_recipient_maps": (
        "who exists at others' hosts is not known here",
        "a router that knows them (docs/plugins/router.md)",
    ),
    "relocated_maps": ("no notes that somebody has moved", "an alias to the new address"),
    "sender_bcc_maps": ("no copies are made", "a plugin"),
    "sender_canonical_maps": ("senders are not rewritten", "let programs say their whole address"),
    "smtp_fallback_relay": ("no second host when the first ones fail", "a name with several MX records and look_up_mx"),
    "smtp_generic_maps": (
        "addresses are not rewritten on their way out",
        "let programs say their whole address ([pickup] domain)",
    ),
    "smtp_header_checks": ("no patterns over headers", FILTERS),
    "smtp_helo_name": ("EHLO says hostname", "hostname"),
    "smtp_sasl_mechanism_filter": ("the strongest mechanism that is offered is taken", "mechanisms of [relay]"),
    "smtp_tls_CAfile": OTHER_CA,
    "smtp_tls_CApath": OTHER_CA,
    "smtpd_sasl_type": (
        "passwords are the server's own accounts'",
        "mailserver import dovecot-passwd FILE (docs/moving.md)",
    ),
    "smtpd_sasl_path": (
        "passwords are the server's own accounts'",
        "mailserver import dovecot-passwd FILE (docs/moving.md)",
    ),
    "smtpd_sasl_local_domain": ("a name without a domain gets that of hostname, else our first", "domain of [authentication]"),
    "smtpd_proxy_filter": ("mail does not go through a filter and back", FILTERS),
    "transport_maps": ("see its lines", "[[route]]"),
    "virtual_alias_maps": ("see its lines", "aliases"),
}

_STEMS: tuple[tuple[str, str, str], ...] = (
    (
        "smtpd_tls_",
        "TLS is as OpenSSL and [tls] have it: 1.2 and newer, forward secrecy",
        "minimum_version and ciphers of [tls]",
    ),
    ("smtp_tls_", "TLS is as OpenSSL has it: 1.2 and newer", "tls of [relay] and of routes (docs/relay.md)"),
    ("lmtp_", "of Postfix's LMTP client", '[delivery] use = "lmtp" (docs/delivery.md)'),
    ("postscreen_", "there is no postscreen", "filters dnsbl, peer_rules, greylist; limits.greeting_delay_seconds"),
    ("tls_", "of Postfix's TLS library", "[tls]"),
)


def verdict_on(name: str) -> tuple[str, str]:
    """Why a parameter that nothing has carried over is left, and what to do."""
    if name in LEFT:
        return LEFT[name]
    for stem, why, todo in _STEMS:
        if name.startswith(stem):
            return why, todo
    return "nothing here has this name", f"`man 5 postconf` says what {name} does; docs/configuration.md has every key"
