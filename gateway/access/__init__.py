"""Who may call, and what for: keys, scopes, and the rules of a gateway that has no keys."""
