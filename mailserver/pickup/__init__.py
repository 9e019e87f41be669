"""The folder through which programs of this host hand over mail (Postfix: pickup, maildrop).

In the order in which they are read:

* `file_format`: the format of a file: its first line is the envelope, the message follows
* `folder`: the folder on the disk: who may put files into it, how one is taken out
* `pickup`: watches the folder and says which file is next
* `handover`: one file into the queue, through as many transactions as its recipients need
* `file_transaction`: one transaction for a file: the router, the filters and the limits of a connection's
* `progress`: who has a file's message already, where some recipients have to wait; survives a crash
* `user_names`: users' names by number, from a name service that may hang
* `log_lines`: log lines about entries of the folder, so few that no user can flood the log
"""
