"""What a Django site installs when it outgrows one machine.

Where to start reading: `outgrow.servers` (a set of servers, their health and
the choice among them), then `outgrow.media` (every upload on every media
server), then `outgrow.topology` (one file that says which servers there are).
The errors are drawn as a tree in `outgrow.errors`.
"""

__version__ = "0.1.0"
