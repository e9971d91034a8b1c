"""The inference engines behind one protocol (see ``base``)."""
