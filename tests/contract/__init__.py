"""What a session promises, whichever worker is behind it: one suite on the scripted and the real one."""
