"""Generation jobs: the running ones, their records on disk, and what is told about their progress."""
