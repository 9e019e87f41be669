"""Counters for monitoring: what is counted, and the listener that gives it out (``service = "metrics"``).

In the order in which they are read:

* `catalogue`: every figure: its name, its kind, its labels, what it means
* `counters`: counters and histograms
* `gauge`: a figure that is read when somebody asks
* `meter`: figures out of the steps of roads
* `lag`: how late the reactor's calls come
* `health`: whether mail is taken, and why not
* `exposition`: the text that Prometheus reads
* `pages`: the listener
"""
