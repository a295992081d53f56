"""Where weights and data come from."""
