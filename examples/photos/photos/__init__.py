"""A small photo site whose uploads are on every media server."""
