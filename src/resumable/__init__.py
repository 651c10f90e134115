"""Long work that survives anything."""
