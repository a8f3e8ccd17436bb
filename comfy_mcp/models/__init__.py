"""Model files: where they lie, what they are, and which checkpoint answers a request."""
