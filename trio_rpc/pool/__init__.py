"""Many instances of a service, called as one: a session with each, and calls shared among them."""
