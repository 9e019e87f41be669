"""What is wrong with this server, told to whom it concerns: notes to postmaster (Postfix: notify_classes).

In the order in which they are read:

* `problems`: what is wrong now, as far as a postmaster can do something about it
* `notes`: what else only the log would say: a report that reached nobody, a certificate that expires
"""
