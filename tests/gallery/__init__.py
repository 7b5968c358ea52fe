"""A gallery of small servers that offer the same business by APIs of different styles."""
