"""Read what a LoRA file says of itself: safetensors header, architecture, keys, hashes. Pure."""
