"""From a recording to a contract document."""
