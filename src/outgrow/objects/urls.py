"""The path of `outgrow.objects.views`, for the site's visitors.

::

    urlpatterns = [path("uploads/", include("outgrow.objects.urls"))]
"""

from django.urls import path

from outgrow.objects import views

app_name = "outgrow-uploads"
urlpatterns = [path("permit/", views.permit, name="permit")]
