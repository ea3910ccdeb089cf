"""Backup and restore: snapshots whose files are cut into blocks, each of which is kept once, by its content."""
