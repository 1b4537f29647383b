"""What is lost when things fail: kills at random moments."""
