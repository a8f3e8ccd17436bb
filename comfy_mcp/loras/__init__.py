"""LoRAs: the library that lists and inspects them, the folder that holds them, and how they get there."""
