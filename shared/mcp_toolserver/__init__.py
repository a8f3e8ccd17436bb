"""What any tool server needs and no server should write twice: tools, errors, doors, uploads, downloads."""

__version__ = "0.1.0"
