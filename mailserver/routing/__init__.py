"""Where an address leads: domains, aliases, patterns.

In the order in which they are read:

* `router`: where a recipient goes
* `domains`: the domains that are delivered here, and their aliases, checked once
* `patterns`: rules for addresses by convention: ``{user}.{tag}``, ``{tag}@{user}.example.org``
"""
