"""Writes docs/metrics.md from the catalogue: ``python -m tests.metrics.page``."""

from __future__ import annotations

from pathlib import Path

from mailserver.metrics.catalogue import METRICS, PREFIX

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
HEAD = """\
# Metrics

A listener gives figures to Prometheus and says whether the server is well:

```toml
[[listen]]
service  = "metrics"
endpoint = "tcp:9154:interface=127.0.0.1"
```

| path | |
|---|---|
| `/metrics` | the figures below, in Prometheus' text format or OpenMetrics' |
| `/health/live` | 200 while the server answers at all |
| `/health/ready` | 200 where mail is accepted; 503 with the reasons in JSON where it is not: it starts or stops, the queue cannot be written, the disk has no room beside its reserve, a listener is missing, calls come five seconds late |

Whoever can connect may read them, so the endpoint is on loopback or a Unix socket; elsewhere `token_file` names a file
whose first line a client has to show (`Authorization: Bearer …`). The file is read for each request, and a reload takes
up another one. There are at most fifty connections: one more takes the place of one that asks nothing. A request is
whole within 30 seconds, and has no body, or its connection ends. There is no TLS: put a proxy before it, or let the
collector run on this host.

Counters begin with 0 when the first such listener begins to listen, and are exact: a step that comes too fast for the
log is counted all the same. Nothing is counted where there is no such listener. Labels take few values, and none that a
stranger chooses: `provider` is one of the large operators by the names of their hosts, else `other`; at most 300 sets
of label values of one name are kept apart, further ones count as `other`.

[contrib/](../contrib) has a dashboard for Grafana and alert rules.

| name | kind | labels | |
|---|---|---|---|
"""
TAIL = """
What components count (`services.metrics`) follows as `mailserver_component_NAME` with the label `component`: for the
shipped filters [filters.md](filters.md) says what.
"""


def page() -> str:
    """The page."""
    rows = [
        f"| `{PREFIX}{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |"
        for one in METRICS.values()
    ]
    return HEAD + "\n".join(rows) + "\n" + TAIL


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
