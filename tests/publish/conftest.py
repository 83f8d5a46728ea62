from tests.publish.subjects import place, source  # noqa: F401 - fixtures
