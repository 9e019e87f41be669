"""The tests.  How fast the machine is decides nothing here: hypothesis measures no example."""

from hypothesis import HealthCheck, settings

settings.register_profile("any machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
