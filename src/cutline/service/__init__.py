"""The REST service and its try page."""
