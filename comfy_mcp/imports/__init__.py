"""LoRAs from the server that trained them, and from the web, in one call."""
