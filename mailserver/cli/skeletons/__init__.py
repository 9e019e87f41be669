"""What ``mailserver plugins new NAME --kind KIND`` writes: a package that pip can install, with a component and its tests.

A template's marks are ``@name@``, ``@module@`` and ``@class@``.

In the order in which they are read:

* `writing`: writes the package: what is the same for every kind, and the names in it
* `filter`: the template of a filter
* `modifier`: the template of a modifier
* `scorer`: the template of a scorer
* `observer`: the template of an observer
* `delivery`: the template of a delivery
* `router`: the template of a router
* `directory`: the template of a directory
* `checker`: the template of a checker of passwords
* `command`: the template of a component with commands of its own
"""
