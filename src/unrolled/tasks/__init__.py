"""What a person wants done: one file a task, and the run folder they share."""
