"""Tasks: one a file, `task(**options) -> Task`."""
