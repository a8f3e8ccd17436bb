"""Uploads that survive: a store whose file size is the progress, and the ways in that share it."""
