"""The tables of the photo site."""
