"""The way of a batch: read ahead, validated, committed to the lake, published to the warehouse."""
