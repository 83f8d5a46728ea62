"""Scripts that the drills run as processes of their own, and kill."""
