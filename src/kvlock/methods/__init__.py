"""Every method by name, and those that are more than another schedule."""
