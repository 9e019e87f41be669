"""Who exists: the directories, each behind `IDirectory`.  Who may log in is `authentication`.

In the order in which they are read:

* `entry`: one account of the accounts file, and how its table is read
* `table`: the accounts file: read, and edited without disturbing what people wrote around it
* `edit`: a change to the text of the accounts file that leaves alone what people wrote around it
* `file`: the directory whose accounts stand in a file: ``[accounts] use = "file"``
* `kept_password`: from a password to all that is kept of it
* `cached_directory`: who exists, remembered for a while: each recipient of each message asks
* `directory_faults`: a directory that cannot be asked
* `sql_sources`: databases that accounts are read from: SQLite and PostgreSQL
* `sql`: Accounts in a database: ``[accounts] use = "sql"``
* `ldap_connection`: conversations with an LDAP server (RFC 4511), spoken by ldaptor's protocol
* `ldap`: Accounts in an LDAP directory: ``[accounts] use = "ldap"``
* `system_users`: the host's own users as a directory
* `system_logins`: the host's own users, who log in with their passwords of the host: ``[accounts] use = "system"`` with
  ``pam``
* `system`: the component for the host's own users: ``[accounts] use = "system"``
* `rename`: accounts of the accounts file get other addresses, with all that they have
"""
