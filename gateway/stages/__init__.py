"""The seven stages. None knows another; ``gateway.pipeline`` alone knows their order."""
