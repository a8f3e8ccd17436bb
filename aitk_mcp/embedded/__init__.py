"""A trainer that runs anywhere, with AI Toolkit's command line and files: `python -m aitk_mcp.embedded.run CONFIG`.

It is a program of its own; the server starts it as it starts AI Toolkit.
"""
