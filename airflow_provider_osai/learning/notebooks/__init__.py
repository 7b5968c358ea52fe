"""Read the calls that a vendor's notebook or script states; the code is parsed and never run."""
