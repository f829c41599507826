"""What an editor asks about the namespace, without running the code's own code.

completion           what could stand at the cursor; what stands there
signatures           signatures and docstrings
scanner              tokens of unfinished source
importable_modules   names after `import`
"""
