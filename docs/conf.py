"""Sphinx's configuration."""

from __future__ import annotations

import os

import django

import outgrow

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django.conf.global_settings")
django.setup()

project = "Outgrow"
copyright = "2026, the Outgrow authors"  # noqa: A001 - Sphinx's name for it
release = version = outgrow.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_static_path = ["_static"]
html_title = f"Outgrow {release}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
# A type of another package is no page of ours.
nitpicky = False
