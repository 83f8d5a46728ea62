"""`manage.py outgrow`: the words of the `outgrow` command that need the settings."""
