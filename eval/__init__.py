"""What a base and a hat are worth."""
