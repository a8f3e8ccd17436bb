"""Serve AI Toolkit as MCP tools: datasets in, LoRAs out."""
