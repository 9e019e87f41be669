"""Where an address leads (Postfix: trivial-rewrite and the maps that it asks).

In the order in which they are read:

* `patterns`: rules for addresses by convention: ``{user}.{tag}``, ``{tag}@{user}.example.org``
* `domains`: the domains that are delivered here and their aliases, checked once
* `router`: the routes of a recipient: accounts, aliases, subaddresses, patterns, roles, catch-all
"""
