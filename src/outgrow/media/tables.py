"""The tables of the catalogue: what a storage without a master knows of its files.

All but `Live` lie in the catalogue's own database connection. `Live` is written by the
site's transactions, and so lies where the site's own tables do.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

#: Hexadecimal digits of a SHA-256. Names are longer than some databases can index, and
#: some fold their case, so a digest of the name is the key.
DIGEST = 64


class File(models.Model):
    """One name that was saved. It is never used again, so `gone` is for ever.

    `attempt` is the save or delete in progress, `owner` its process. `transaction` tells
    which transaction of the site will make it live (see `outgrow.media.catalogue`).
    """

    key = models.CharField(max_length=DIGEST, primary_key=True)
    catalogue = models.CharField(max_length=100)
    name = models.TextField()
    gone = models.BooleanField(default=False)
    size = models.BigIntegerField(default=0)
    digest = models.CharField(max_length=DIGEST, blank=True)
    attempt = models.CharField(max_length=40, blank=True)
    owner = models.CharField(max_length=60, blank=True)
    transaction = models.CharField(max_length=32, blank=True)
    #: The site's row was seen, committed.
    is_live = models.BooleanField(default=False)
    #: By the clock of the database.
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        """Found by what is in progress, and by what is not live yet."""

        app_label = "outgrow"
        indexes: ClassVar = [
            models.Index(fields=["catalogue", "attempt"], name="outgrow_file_attempt"),
            models.Index(fields=["catalogue", "is_live", "gone"], name="outgrow_file_live"),
        ]

    def __str__(self) -> str:
        return self.name


class Live(models.Model):
    """A transaction of the site has committed this file."""

    key = models.CharField(max_length=DIGEST, primary_key=True)

    class Meta:
        """Nothing but the key: the rest is in `File`."""

        app_label = "outgrow"

    def __str__(self) -> str:
        return self.key


class Owed(models.Model):
    """One server is to be looked at for one name, or for all: see `journal.Debt`."""

    catalogue = models.CharField(max_length=100)
    server = models.CharField(max_length=100)
    attempt = models.CharField(max_length=40)
    kind = models.CharField(max_length=10)
    key = models.CharField(max_length=DIGEST, blank=True)
    name = models.TextField(blank=True)
    since = models.FloatField()
    looks = models.IntegerField(default=0)
    at = models.FloatField()
    mark = models.CharField(max_length=16, blank=True)

    class Meta:
        """Read server by server, oldest first; and name by name."""

        app_label = "outgrow"
        indexes: ClassVar = [
            models.Index(fields=["catalogue", "server", "attempt"], name="outgrow_owed_server"),
            models.Index(fields=["catalogue", "key"], name="outgrow_owed_key"),
        ]

    def __str__(self) -> str:
        return f"{self.server}: {self.name}"


class Fact(models.Model):
    """What is known of the catalogue as a whole: its id, its servers, the watch's heartbeat."""

    catalogue = models.CharField(max_length=100)
    name = models.CharField(max_length=120)
    value = models.TextField(blank=True)
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        """One of each."""

        app_label = "outgrow"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["catalogue", "name"], name="outgrow_fact_name")
        ]

    def __str__(self) -> str:
        return self.name
