"""Defaults of Postfix 3.7 that matter here, for hosts without its ``postconf`` (postconf(5))."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DEFAULTS"]


DEFAULTS: Mapping[str, str] = {
    "alias_maps": "hash:/etc/aliases",
    "append_dot_mydomain": "no",
    "biff": "yes",
    "bounce_queue_lifetime": "5d",
    "compatibility_level": "0",
    "default_destination_concurrency_limit": "20",
    "default_process_limit": "100",
    "default_transport": "smtp",
    "delay_warning_time": "0h",
    "disable_vrfy_command": "no",
    "empty_address_relayhost_maps_lookup_key": "<>",
    "home_mailbox": "",
    "inet_interfaces": "all",
    "inet_protocols": "all",
    "local_recipient_maps": "proxy:unix:passwd.byname $alias_maps",
    "local_transport": "local:$myhostname",
    "mail_name": "Postfix",
    "mail_spool_directory": "/var/mail",
    "mailbox_size_limit": "51200000",
    "maximal_backoff_time": "4000s",
    "maximal_queue_lifetime": "5d",
    "message_size_limit": "10240000",
    "milter_default_action": "tempfail",
    "minimal_backoff_time": "300s",
    "mydestination": "$myhostname, localhost.$mydomain, localhost",
    "mynetworks": "127.0.0.0/8 [::1]/128",
    "myorigin": "$myhostname",
    "parent_domain_matches_subdomains": "debug_peer_list,fast_flush_domains,mynetworks,permit_mx_backup_networks,"
    "qmqpd_authorized_clients,relay_domains,smtpd_access_maps",
    "propagate_unmatched_extensions": "canonical, virtual",
    "queue_directory": "/var/spool/postfix",
    "recipient_delimiter": "",
    "relay_domains": "",
    "relay_transport": "relay",
    "relayhost": "",
    "smtp_sasl_auth_enable": "no",
    "smtp_sender_dependent_authentication": "no",
    "smtp_tls_security_level": "",
    "smtp_tls_wrappermode": "no",
    "smtpd_client_connection_count_limit": "50",
    "smtpd_recipient_limit": "1000",
    "smtpd_relay_restrictions": "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination",
    "smtpd_sasl_auth_enable": "no",
    "smtpd_tls_key_file": "$smtpd_tls_cert_file",
    "smtpd_tls_security_level": "",
    "smtpd_tls_wrappermode": "no",
    "virtual_alias_domains": "$virtual_alias_maps",
    "virtual_alias_maps": "",
    "virtual_mailbox_base": "",
    "virtual_mailbox_domains": "$virtual_mailbox_maps",
    "virtual_mailbox_maps": "",
    "virtual_transport": "virtual",
}
