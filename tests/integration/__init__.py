"""Real code in real workers, through the public client alone."""
