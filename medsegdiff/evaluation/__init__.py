"""Level 3: how good are masks, probabilities and uncertainty, compared with a reference?"""
