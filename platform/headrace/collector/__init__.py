"""Take events over HTTP, keep them in a durable log, and send them on until the lake holds them."""
