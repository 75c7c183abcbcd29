"""Read files in a folder or below an S3 prefix.

``source`` reads them, ``archive`` lists and opens them, and ``index`` remembers which were examined.
"""
