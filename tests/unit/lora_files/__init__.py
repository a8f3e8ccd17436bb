"""Tests of lora_files."""
