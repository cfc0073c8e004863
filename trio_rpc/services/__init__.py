"""What is callable: decorators, method tables, signatures, proxies. No tasks, no I/O."""
