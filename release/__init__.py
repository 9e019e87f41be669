"""What makes releases; it is not installed.

``dist`` makes sdist and wheel, ``sbom`` their bill of materials, ``lock`` pins what the packages carry
(``requirements.lock``), ``deb`` makes the Debian packages out of ``debian/``.
"""
