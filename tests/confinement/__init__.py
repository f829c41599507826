"""Attempts to get out, and what they come to."""
