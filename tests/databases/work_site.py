"""A site whose tasks are run by real workers: settings and Celery's app, from the environment."""

from __future__ import annotations

import importlib.util
import json
import os

SECRET_KEY = "tests only"
USE_TZ = True
RUNNER = os.environ["RUNNER"]
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "outgrow"]
DATABASES = json.loads(os.environ["DATABASES"])
DATABASE_ROUTERS = ["outgrow.databases.ReplicationRouter"]
MIDDLEWARE = ["outgrow.databases.ReplicationMiddleware"]
OUTGROW = {
    "REPLICATION": {
        "default": {
            "replicas": [alias for alias in DATABASES if alias != "default"],
            "check_every": 0.05,
            "max_lag": 50,
            "pin_for": 90,
            "downtime": 0.2,
            "read_timeout": 5,
            # A request that reads may not write, but its tasks may. A queue in the database is
            # written to by who sends a task.
            "write_on_read": "pin" if RUNNER == "tasks" else "refuse",
        }
    }
}
ROOT_URLCONF = "tests.databases.work"
ALLOWED_HOSTS = ["*"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
if RUNNER == "tasks":
    INSTALLED_APPS.append("django_tasks_db")
    if importlib.util.find_spec("django.tasks") is None:
        INSTALLED_APPS.append("django_tasks")
    TASKS = {"default": {"BACKEND": "outgrow.databases.task_backends.DatabaseBackend"}}
if RUNNER == "celery":
    from celery import Celery

    import outgrow.databases.celery

    app = Celery("site", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_transport_options={"visibility_timeout": 3600},
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        imports=["tests.databases.work"],
    )
    app.set_default()
    outgrow.databases.celery.connect()
