"""Several processes: the group, its collectives, heartbeat."""
