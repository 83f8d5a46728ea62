"""Fixtures for all tests."""

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.live.mariadb",
    "tests.live.nginx",
    "tests.live.postgres",
    "tests.live.redis",
    "tests.live.replicas",
]

# How long an example takes says how busy the machine is; pytest-timeout ends what hangs.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
