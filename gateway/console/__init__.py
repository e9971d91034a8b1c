"""``/console``: a page to look into the gateway with; its calls are those of the API."""
