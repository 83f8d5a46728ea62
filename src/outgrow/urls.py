"""The paths of `outgrow.views`."""

from django.urls import path

from outgrow import views

app_name = "outgrow"
urlpatterns = [
    path("status/", views.status, name="status"),
    path("ready/<str:server>/", views.ready, name="ready"),
    path("metrics/", views.metrics, name="metrics"),
]
