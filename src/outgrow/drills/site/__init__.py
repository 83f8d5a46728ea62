"""What a site that is drilled has besides its own: settings, a table, and some views.

Nothing of it is ever part of a site that is not drilled: `outgrow drill` alone names these
settings, and the path of the views is a new one each time.
"""
