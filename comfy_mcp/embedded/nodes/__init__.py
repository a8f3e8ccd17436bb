"""The node classes that the embedded engine knows: one row each, in the module of its kind."""
