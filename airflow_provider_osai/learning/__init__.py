"""Learn a contract document from a recording, an API definition or a vendor's notebook."""
