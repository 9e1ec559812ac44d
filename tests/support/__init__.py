"""What several test folders use; imports no framework."""
