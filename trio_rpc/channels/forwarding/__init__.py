"""Many channels over one."""
