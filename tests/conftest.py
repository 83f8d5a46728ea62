"""Fixtures for all tests."""

pytest_plugins = [
    "tests.live.mariadb",
    "tests.live.nginx",
    "tests.live.postgres",
    "tests.live.redis",
    "tests.live.replicas",
]
