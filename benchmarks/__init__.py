"""What a call costs, as a ratio to what it must cost: see README.md beside this file."""
