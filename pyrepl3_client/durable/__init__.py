"""The only room that imports Resonate: what makes executions outlive their worker."""
