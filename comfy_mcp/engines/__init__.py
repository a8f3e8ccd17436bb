"""The programs that render, one module per foreign system; nothing else in this package speaks to them."""
