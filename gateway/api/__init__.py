"""The HTTP surface, one module an endpoint family."""
