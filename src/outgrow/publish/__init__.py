"""Static files as releases: named by their content, compressed, pushed, never half visible."""
