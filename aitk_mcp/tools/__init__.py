"""Tools of aitk_mcp: argument and result models, and the list of tools."""
