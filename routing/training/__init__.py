"""Training and measuring the router. Nothing here is imported by a serving process."""
