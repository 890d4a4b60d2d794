"""What evaluators share."""
