"""Several processes behind one port, for an engine that is a server of its own.

pool.py      the parent: starts them, watches them, hands signals on
worker.py    one of them: a gateway that doesn't own the port
ready.py     what a worker tells the parent once it answers
memory.py    the first one owns the memory; the others ask it over a Unix socket
"""
