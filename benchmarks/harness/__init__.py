"""What every experiment shares: data, what a contender is, training, time, scores, table."""
