"""A visitor of the site of workers: a request for each line of its input."""

from __future__ import annotations

import json
import sys

import django

django.setup()

from django.test import Client  # noqa: E402 - after the setup

clients: dict[str, Client] = {}
for line in sys.stdin:
    who, method, path = json.loads(line)
    client = clients.setdefault(who, Client())
    response = getattr(client, method)(path)
    print(json.dumps(response.json()), flush=True)
