"""What was seen, kept as Parquet by day: written by the cycle and by imports, read by back-tests."""
