"""The folder through which programs of this host hand mail over (Postfix: pickup, postdrop).

In the order in which they are read:

* `pickup`: watches the pickup folder: mail that programs of this host hand over
* `folder`: the pickup folder on the disk: who may put files into it, and how one is taken out
* `file_format`: the form of a file in the pickup folder: a message that a program of this host hands over
* `handover`: brings one file of the pickup folder into the queue, through as many transactions as its recipients need
* `file_transaction`: one file of the pickup folder in one transaction, as a connection has one: the same router, filters
  and limits
* `progress`: how far a file of the pickup folder has come, where one transaction was not enough for all its recipients
* `user_names`: Users' names, asked of the host's name service outside the reactor: a directory server that hangs costs
  a pause, no more
* `log_lines`: what is said in the log about the entries of the pickup folder, so that nobody can flood it
"""
