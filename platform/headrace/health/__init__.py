"""Whether lake and warehouse hold what they should: plain values that checks, commands and reports judge by."""
