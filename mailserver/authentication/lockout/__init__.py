"""Keeps those out who guess passwords.

In the order in which they are read:

* `counting`: when failed log-ins become a lockout: pure counting
* `lockout`: keeps those out who guess passwords: by account from a network, by account everywhere, by network
* `entries`: lockouts as an administrator names them: entries, and which of them are meant
"""
