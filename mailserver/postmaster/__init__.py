"""What is wrong with this server, told to whom it concerns: notes to postmaster (Postfix: notify_classes).

In the order in which they are read:

* `troubles`: what is wrong with this server now, as far as a postmaster has to do something about it
* `notes`: notes to postmaster: what else only the log would say, such as a report that reached nobody, or a certificate
  that expires
"""
