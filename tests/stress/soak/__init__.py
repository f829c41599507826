"""A long run of everything at once: what stays correct, and what does not grow."""
