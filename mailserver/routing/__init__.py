"""Where an address leads: domains, aliases, patterns.

In the order in which they are read:

* `router`: says where a recipient goes
* `domains`: the domains whose mail is delivered here, and their aliases, checked once when they are loaded
* `patterns`: rules for addresses by convention: ``{user}.{tag}``, ``{tag}@{user}.example.org``
"""
