"""Files in a folder or below an S3 prefix as a source."""
