"""The roads of messages as traces of OpenTelemetry: one trace for each message, one span for each step.

Nothing of it runs in the server: `mailserver traces export` reads what the server has written down (``explain.db``).  So a
collector that is slow or away holds up no mail, and what it has missed is still there.  In the order in which they are read:

* `spans`: steps of a road as spans.  Pure
* `ledger`: how far the export has come, and which messages are not over
* `reading`: what has been written since then, in bounded batches
* `otlp`: spans to a collector, by OTLP over HTTP; the only module that needs the extra ``otel``
* `export`: batch after batch, again where the collector is away
"""
