"""Who exists: the directories, each behind `IDirectory`.  Who may log in is `authentication`.

In the order in which they are read:

* `entry`: one account of the accounts file, and how its table is read
* `table`: the accounts file, read and edited
* `edit`: one change to the text of the accounts file
* `file`: the directory whose accounts stand in a file: ``[accounts] use = "file"``
* `kept_password`: everything that an account keeps of its password
* `rename`: other addresses for accounts of the accounts file, with all that they have
* `cached_directory`: who exists, remembered for a while, since each recipient of each message asks
* `directory_faults`: two kinds of `CannotTell`, after which another try may be worth it
* `sql_sources`: the databases that accounts are read from: SQLite and PostgreSQL
* `sql`: accounts in a database: ``[accounts] use = "sql"``
* `ldap_connection`: conversations with an LDAP server (RFC 4511), spoken by ldaptor's protocol
* `ldap`: accounts in an LDAP directory: ``[accounts] use = "ldap"``
* `system_users`: the host's own users as a directory
* `system_logins`: the host's users and their passwords, over PAM
* `system`: the component for either: ``[accounts] use = "system"``
"""
