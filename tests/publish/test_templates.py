"""Templates that name a static file which is not there: told when the site is built."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from outgrow.publish.templates import names
from tests.publish.sites import write


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{% static "a.css" %}', [(1, "a.css")]),
        ("\n\n{% static 'a b.css' as url %}", [(3, "a b.css")]),
        ('{%static "a.svg#icon"%}{% static "a.svg?v=1" %}', [(1, "a.svg"), (1, "a.svg")]),
        ('{% integrity "js/app.js" %}', [(1, "js/app.js")]),
        ('<a href="{% static "img/%C3%BC.png" %}">', [(1, "img/ü.png")]),
        ("{% static name %}{% static 'a'|add:b %}{% static %}{% static \" %}", []),
        ("{% static 'img/' %}{% static '' %}", []),
        ('{# {% static "a.css" %} #}', []),
        ('{% comment "why" %}{% static "a.css" %}{% endcomment %}{% static "b" %}', [(1, "b")]),
        ('{% verbatim %}{% static "a.css" %}{% endverbatim %}', []),
        ("{% load static %}{% block static %}{% endblock %}{{ static }}{% %}", []),
        ("static", []),
    ],
)
def test_what_a_template_names(template: str, expected: list[tuple[int, str]]) -> None:
    assert list(names(template)) == expected


@pytest.fixture
def site(tmp_path: Path):
    """A site of one sheet, with templates of its own."""
    write(tmp_path / "static", {"css/base.css": b"p { }"})
    engine = {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [str(tmp_path / "templates")],
        "APP_DIRS": True,
    }
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/picture.png").write_bytes(b"\x89PNG\xff static")

    def site(**options: object):
        return override_settings(
            DEBUG=False,
            INSTALLED_APPS=["outgrow", "django.contrib.staticfiles"],
            STATIC_URL="/static/",
            STATIC_ROOT=str(tmp_path / "root"),
            STATICFILES_DIRS=[str(tmp_path / "static")],
            STATICFILES_FINDERS=["django.contrib.staticfiles.finders.FileSystemFinder"],
            TEMPLATES=[engine],
            STORAGES=published(tmp_path, **options),
        )

    return site


def published(tmp_path: Path, **options: object) -> dict[str, object]:
    given = {"manifest": str(tmp_path / "static.json"), "to": str(tmp_path / "www")}
    return {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {
            "BACKEND": "outgrow.publish.storages.PublishedStaticFilesStorage",
            "OPTIONS": given | options,
        },
    }


def template(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / "templates" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


MISSING = "shop/page.html:2: the static file 'css/bsae.css' is not there. Did you mean"


@pytest.mark.parametrize("words", [["--build"], ["--dry-run"], []])
def test_nothing_is_published_then(site, tmp_path: Path, words: list[str]) -> None:
    template(tmp_path, "shop/page.html", "{% load static %}\n{% static 'css/bsae.css' %}")
    with site(), pytest.raises(CommandError) as raised:
        call_command("outgrow", "publish", *words, stdout=io.StringIO())
    assert f"{MISSING} 'css/base.css'?" in str(raised.value)
    assert not (tmp_path / "www").exists()
    assert not (tmp_path / "static.json").exists()


def test_collectstatic_tells_it_too(site, tmp_path: Path) -> None:
    template(tmp_path, "shop/page.html", "{% load static %}\n{% static 'css/bsae.css' %}")
    with site(), pytest.raises(Exception, match=r"shop/page\.html:2"):
        call_command("collectstatic", "--noinput", stdout=io.StringIO())
    assert not (tmp_path / "www").exists()


def test_a_template_that_may_miss_is_warned_of(site, tmp_path: Path) -> None:
    template(tmp_path, "shop/page.html", "{% load static %}\n{% static 'css/bsae.css' %}")
    told = io.StringIO()
    with site(may_miss=["shop/**"]):
        call_command("outgrow", "publish", stdout=io.StringIO(), stderr=told)
    assert MISSING in told.getvalue().replace("\n", " ")


def test_what_is_there_is_no_mistake(site, tmp_path: Path) -> None:
    template(tmp_path, "page.html", "{% static 'css/base.css' %}{% static 'css/base.css#x' %}")
    told = io.StringIO()
    with site():
        call_command("outgrow", "publish", stdout=io.StringIO(), stderr=told)
    assert told.getvalue() == ""


def test_installed_packages_are_told_in_one_line(site, tmp_path: Path) -> None:
    told = io.StringIO()
    with (
        site(),
        override_settings(
            INSTALLED_APPS=[
                "outgrow",
                "django.contrib.admin",
                "django.contrib.auth",
                "django.contrib.contenttypes",
                "django.contrib.staticfiles",
            ]
        ),
    ):
        call_command("outgrow", "publish", stdout=io.StringIO(), stderr=told)
        text = told.getvalue().replace("\n", " ")
        told = io.StringIO()
        with override_settings(STORAGES=published(tmp_path, may_miss=["admin/**"])):
            call_command("outgrow", "publish", stdout=io.StringIO(), stderr=told)
    assert told.getvalue() == ""
    assert "templates of installed packages name static files that are not there, as admin/" in text
    assert text.count("warning") == 1
