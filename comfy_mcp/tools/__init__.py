"""Tools of comfy_mcp: argument and result models, and the list of tools."""
