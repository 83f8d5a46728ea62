"""One suite for each interface, over every implementation of it."""
