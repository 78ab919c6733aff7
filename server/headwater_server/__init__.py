"""The daemon: sockets, reactive core, worker pool, deploy."""
