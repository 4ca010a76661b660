"""Tasks: one a file, `task(num_classes, **options) -> Task`."""
