"""`outgrow media copy` in a process of its own, which can be killed.

``python -m tests.moving.children STORAGES WORD...``: the setting as JSON, the words of the
command. Storages of `deadly` end the process at a step of the copy.
"""

from __future__ import annotations

import json
import os
import sys

import django
from django.conf import settings
from django.core.management import call_command

if __name__ == "__main__":
    settings.configure(
        STORAGES=json.loads(sys.argv[1]),
        INSTALLED_APPS=["outgrow"],
        USE_TZ=True,
        DATABASES={"default": {}, **json.loads(os.environ["DATABASES"])},
    )
    django.setup()
    call_command("outgrow", *sys.argv[2:])
