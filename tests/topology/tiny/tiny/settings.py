"""The smallest site that keeps uploads: its settings are what docs tell to write."""

from pathlib import Path

from outgrow.topology import current, django_settings

BASE_DIR = Path(__file__).parent.parent
SECRET_KEY = "only for tests"
ROOT_URLCONF = "tiny.urls"
INSTALLED_APPS = ["outgrow"]
USE_TZ = True

globals().update(django_settings(current(BASE_DIR / "topology.toml")))

if "DATABASES" in globals():
    DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
    INSTALLED_APPS += ["tiny.rows"]
    # The rows of one server are asked for by its alias; routing is tested elsewhere.
    DATABASE_ROUTERS = []
    if "mysql" in globals()["DATABASES"]["default"]["ENGINE"]:
        import pymysql

        # Django asks for a mysqlclient of at least this version.
        pymysql.version_info = (2, 2, 8, "final", 0)
        pymysql.install_as_MySQLdb()
