"""What is measured, one module a subject; each gives its rows to `bench.py`."""
