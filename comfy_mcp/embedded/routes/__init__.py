"""ComfyUI's routes, by what they are about."""
