"""What people do to data that has landed: redrive, erase, rebuild."""
