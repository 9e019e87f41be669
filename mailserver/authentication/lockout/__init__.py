"""Keeps those out who guess passwords.

In the order in which they are read:

* `counting`: when failed logins become a lockout: pure counting
* `lockout`: who is locked out: by account from a network, by account everywhere, by network
* `entries`: lockouts as an administrator names them, and which of them are meant
"""
