"""Django's driver for MySQL and MariaDB: mysqlclient where it is, else PyMySQL.

The tests depend on PyMySQL, which needs no compiler. Django wants mysqlclient, but takes
whatever calls itself MySQLdb and new enough. This is the only place that knows.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

#: What Django asks of mysqlclient: 1.4.3 in 5.2, 2.2.1 in 6.1. PyMySQL says which one it
#: stands for, and its older releases say less.
_WANTED = (2, 2, 1, "final", 0)


def install() -> ModuleType:
    """Make `import MySQLdb` work, in this process; the module. May be called again."""
    try:
        return importlib.import_module("MySQLdb")
    except ImportError:
        pymysql = importlib.import_module("pymysql")
        pymysql.version_info = max(tuple(pymysql.version_info), _WANTED)
        pymysql.install_as_MySQLdb()
        return sys.modules["MySQLdb"]


def options() -> dict[str, Any]:
    """What to give `connect` besides: PyMySQL would load the certificates of the world."""
    return {"ssl_disabled": True} if install().__name__ == "pymysql" else {}
