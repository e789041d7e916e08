"""What people and scripts see: text, pictures, streams and exit codes."""
