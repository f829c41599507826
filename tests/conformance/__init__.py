"""What the contract promises, in tables: a name, code, and what the user sees."""
