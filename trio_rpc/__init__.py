"""Remote calls that live inside your nursery."""
