"""Several processes in one run: shards, collectives, the process group and its heartbeat."""
