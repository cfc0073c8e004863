"""A gateway of several instances: any of them serves any client, and one holds its state."""
