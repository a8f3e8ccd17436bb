"""What any tool server needs and no server should write twice: tools, errors, doors, uploads, downloads."""
