"""The tests.  How fast the machine is decides nothing here: hypothesis measures no example."""

from hypothesis import HealthCheck, settings
from twisted.web.http_headers import _NameEncoder

settings.register_profile("any machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# twisted.web writes "Transfer-Encoding" as text and reads it as octets: where both are keys of its cache they are compared, and
# -bb makes an error of that in whichever test comes later.  So nothing is cached.
_NameEncoder._MAX_CACHED_HEADERS = 0
