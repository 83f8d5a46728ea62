"""Signals of Django that Outgrow sends."""

from django.dispatch import Signal

#: A file was saved in a transaction of the site that was rolled back, and a repair pass has
#: deleted it. Sent by storages with a catalogue, in the process that repairs. Arguments:
#: `sender`, the storage's class; `storage`; and `name`, the file's.
file_given_up = Signal()
