"""How much may run, wait and be sent: fair queue, limits of keys, deadlines, sizes, draining."""
