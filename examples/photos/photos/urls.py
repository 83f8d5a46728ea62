"""The addresses of the photo site."""

from django.contrib import admin
from django.urls import path

from photos import views

urlpatterns = [
    path("", views.home, name="home"),
    path("albums/<int:pk>/", views.album, name="album"),
    path("photos/<int:pk>/delete/", views.delete, name="delete"),
    path("servers/", views.servers, name="servers"),
    path("media/<path:name>", views.media, name="media"),
    path("admin/", admin.site.urls),
]
