"""What an encoder has learnt: maps and neighbours, saliency, robustness."""
