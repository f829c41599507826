"""Pools: warm workers, places, and what a warm worker can still change."""
