"""Every figure that the server gives out: its name, its kind, its labels and what it means.

The names are what dashboards and alerts rest on: one that is published does not change its meaning.  docs/metrics.md is made from
this table.  Labels take few values and none that a stranger chooses: no address, no domain, no text of others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["METRICS", "PREFIX", "SECONDS", "SIZES", "Metric"]

PREFIX = "mailserver_"
Kind = Literal["counter", "gauge", "histogram"]
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure.  `name` has no prefix; a histogram has `bounds`, the upper ends of its buckets."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


def _counter(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, "counter", help, labels)


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, "gauge", help, labels)


def _seconds(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, "histogram", help, labels, SECONDS)


METRICS = {
    one.name: one
    for one in (
        # --- what comes in ---
        _counter("connections_total", "Connections that were taken, by the listener's service.", "service"),
        _gauge("connections", "Connections that are open now.", "service"),
        _counter(
            "connections_rejected_total",
            "Connections and commands that were turned away, by the reply's code.",
            "service", "code",
        ),
        _counter("connection_timeouts_total", "Connections that were ended since their time was over.", "service"),
        _counter(
            "messages_received_total",
            "Messages that were accepted durably; service local: of this host and our own.",
            "service",
        ),
        _counter("recipients_received_total", "Their recipients.", "service"),
        _counter("received_bytes_total", "Their octets.", "service"),
        _counter(
            "refusals_total",
            "Senders, recipients and messages that were refused, by stage and the reply's code.",
            "service", "stage", "code",
        ),
        _counter("logins_total", "Attempts to log in.", "mechanism", "outcome"),
        _counter(
            "tls_handshakes_total",
            "Handshakes of TLS; peer client: with those who connect, host: with those we connect to.",
            "peer", "version", "group", "outcome",
        ),
        _seconds("filter_seconds", "How long filters took, by the name of the table.", "filter"),
        _counter("filter_verdicts_total", "What filters said.", "filter", "verdict"),
        _counter("filter_errors_total", "How often filters failed.", "filter"),
        # --- the queue ---
        _seconds("commit_seconds", "One commit of the queue, with its sync: that long 250 waits at least."),
        Metric("commit_batch_messages", "histogram", "Messages in one commit.", (), SIZES),
        _gauge("queue_messages", "Messages in the queue."),
        _gauge("queue_active_messages", "Those of them that are in memory, to be delivered now."),
        _gauge(
            "queue_recipients",
            "Recipients of waiting messages that have been tried or are held, by state.",
            "state",
        ),
        _gauge(
            "queue_oldest_seconds",
            "The age of the oldest message of which a recipient has this state; any: of the queue.",
            "state",
        ),
        _seconds("delivery_seconds", "From the arrival of a message to its delivery to a recipient."),
        _counter("deliveries_total", "Outcomes for recipients, here and elsewhere.", "outcome"),
        _counter("reports_total", "Reports that were made (RFC 3464), by condition.", "condition"),
        # --- what goes out ---
        _counter("attempts_total", "Attempts at other hosts, for each recipient.", "provider", "outcome", "tls"),
        _gauge("relay_connections", "Connections to other hosts that are open now."),
        _counter("relay_connections_opened_total", "Connections to other hosts that were opened."),
        _counter("relay_connections_reused_total", "Transactions over a connection that was open."),
        _counter("relay_connections_failed_total", "Connections to other hosts that came to nothing."),
        _counter(
            "tls_demands_total",
            "What was demanded of other hosts' TLS, by whom, and what came of it.",
            "by", "outcome",
        ),
        # --- the DNS ---
        _counter("dns_queries_total", "Questions of our parts."),
        _counter("dns_cached_total", "Questions that were answered from memory."),
        _counter("dns_failures_total", "Questions that nobody could answer."),
        _gauge("domain_faults", "What the last daily look and its trials found wrong with our domains (`mailserver dns`)."),
        _seconds("dns_seconds", "How long name servers took.", "outcome"),
        # --- the server ---
        _seconds("reactor_lag_seconds", "How late a call of the reactor comes: measured four times a second."),
        _gauge("certificate_expiry_seconds", "Until the certificate ends.", "name"),
        _gauge("certificate_late", "Whether a certificate that comes by ACME should have been renewed by now.", "name"),
        _counter("steps_total", "Steps of roads, by name.", "step"),
        _counter("steps_dropped_total", "Steps that came too fast to be written."),
        _gauge("components_failing", "Components whose circuit is open."),
        _gauge("processes_missing", "Small processes that do not run."),
        _gauge("threads_hanging", "Threads that hang."),
        _gauge("disk_free_bytes", "Room on the data folder's disk."),
        _gauge(
            "disk_reserve_bytes",
            "What has to stay free: below it nothing is accepted (limits.minimum_free_bytes).",
        ),
        _gauge("start_time_seconds", "When the server started (Unix time)."),
        _gauge("info", "1; the version.", "version"),
        _gauge("ready", "1 where mail is accepted, 0 where not: /health/ready says why."),
    )
}  # fmt: skip
