"""The API server: the connection, what is known of its objects, writes, and the lease."""
