"""Writes contrib/grafana/mailserver.json: ``python -m tests.metrics.dashboard``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["DASHBOARD", "dashboard"]

DASHBOARD = Path(__file__).parents[2] / "contrib" / "grafana" / "mailserver.json"
RATE = "[$__rate_interval]"
PANELS = (  # title, unit, and for each line its legend and its query
    ("Mail in", "short", (("{{service}}", f"sum by (service) (rate(mailserver_messages_received_total{RATE}))"),)),
    ("Refused", "short", (("{{stage}} {{code}}", f"sum by (stage, code) (rate(mailserver_refusals_total{RATE}))"),)),
    ("Delivered", "short", (("{{outcome}}", f"sum by (outcome) (rate(mailserver_deliveries_total{RATE}))"),)),
    ("Queue", "short", (("messages", "mailserver_queue_messages"), ("in memory", "mailserver_queue_active_messages"))),
    ("Oldest in the queue", "s", (("{{state}}", "mailserver_queue_oldest_seconds"),)),
    (
        "Time to the mailbox",
        "s",
        tuple(
            (f"p{n}", f"histogram_quantile(0.{n}, sum by (le) (rate(mailserver_delivery_seconds_bucket{RATE})))") for n in (50, 95)
        ),
    ),
    ("Attempts elsewhere", "short", (("{{provider}} {{outcome}}", f"sum by (provider, outcome) (rate(mailserver_attempts_total{RATE}))"),)),
    ("TLS of other hosts", "short", (("{{by}} {{outcome}}", f"sum by (by, outcome) (rate(mailserver_tls_demands_total{RATE}))"),)),
    ("Connections", "short", (("{{service}}", "mailserver_connections"), ("to other hosts", "mailserver_relay_connections"))),
    ("Log-ins", "short", (("{{mechanism}} {{outcome}}", f"sum by (mechanism, outcome) (rate(mailserver_logins_total{RATE}))"),)),
    ("Commit", "s", (("p95", f"histogram_quantile(0.95, sum by (le) (rate(mailserver_commit_seconds_bucket{RATE})))"),)),
    ("Filters, p95", "s", (("{{filter}}", f"histogram_quantile(0.95, sum by (filter, le) (rate(mailserver_filter_seconds_bucket{RATE})))"),)),
    ("Verdicts", "short", (("{{filter}} {{verdict}}", f"sum by (filter, verdict) (rate(mailserver_filter_verdicts_total{RATE}))"),)),
    ("DNS, p95", "s", (("{{outcome}}", f"histogram_quantile(0.95, sum by (outcome, le) (rate(mailserver_dns_seconds_bucket{RATE})))"),)),
    ("Held up, p99", "s", (("lag", f"histogram_quantile(0.99, sum by (le) (rate(mailserver_reactor_lag_seconds_bucket{RATE})))"),)),
    ("Certificates end in", "s", (("{{name}}", "mailserver_certificate_expiry_seconds"),)),
    ("Room on the disk", "bytes", (("free", "mailserver_disk_free_bytes"), ("reserve", "mailserver_disk_reserve_bytes"))),
    ("Ready", "short", (("{{instance}}", "mailserver_ready"),)),
)


def dashboard() -> str:
    """The file."""
    source = {"type": "prometheus", "uid": "${source}"}
    panels: list[dict[str, Any]] = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": title,
            "datasource": source,
            "gridPos": {"h": 8, "w": 8, "x": number % 3 * 8, "y": number // 3 * 8},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + n), "datasource": source, "expr": query, "legendFormat": legend}
                for n, (legend, query) in enumerate(lines)
            ],
        }
        for number, (title, unit, lines) in enumerate(PANELS)
    ]
    whole = {
        "title": "mailserver",
        "uid": "mailserver",
        "schemaVersion": 39,
        "tags": ["mail"],
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus", "label": "Data source"}]},
        "panels": panels,
    }
    return json.dumps(whole, indent=1) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(dashboard(), encoding="utf-8")
