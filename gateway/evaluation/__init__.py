"""Does the whole pipeline answer better than its base alone? Benchmarks, arms, records, report."""
