"""One service at each end of a connection, as clients and handlers of connections use it."""
