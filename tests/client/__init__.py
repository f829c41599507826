"""The client's own behaviour, with a worker that does as it is told."""
