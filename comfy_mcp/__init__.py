"""Serve ComfyUI as MCP tools: LoRAs in, pictures out."""
