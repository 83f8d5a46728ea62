"""A small site for workers of Celery, RQ and Django's tasks: settings from the environment."""

from __future__ import annotations

import importlib.util
import os

SECRET_KEY = "tests only"
USE_TZ = True
RUNNER = os.environ["RUNNER"]
INSTALLED_APPS = ["django.contrib.contenttypes", "outgrow"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SITE_DATABASE"]},
    "outgrow": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MEDIA_URL = "/media/"
STORAGES = {
    "default": {
        "BACKEND": "outgrow.media.AsyncStorage",
        "OPTIONS": {
            "servers": os.environ["SERVERS"].split(","),
            "location": os.environ["MASTER"],
            "background": RUNNER,
            "broker": os.environ["BROKER"],
            "timeout": 1,
            "downtime": 5,
        },
    },
}
if RUNNER == "tasks":
    INSTALLED_APPS.append("django_tasks_db")
    if importlib.util.find_spec("django.tasks") is None:
        INSTALLED_APPS.append("django_tasks")
    TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
if RUNNER == "celery":
    from celery import Celery

    app = Celery("site", broker=os.environ["BROKER"])
    app.conf.update(
        task_publish_retry=False,
        broker_transport_options={"socket_connect_timeout": 1, "socket_timeout": 1},
        broker_connection_retry_on_startup=True,
        # A job whose worker was killed is done by another.
        task_acks_late=True,
        worker_send_task_events=False,
    )
    app.autodiscover_tasks(lambda: INSTALLED_APPS)
    app.set_default()
