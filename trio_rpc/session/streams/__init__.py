"""What lasts longer than one answer: streams, duplexes, remote scopes, started tasks."""
