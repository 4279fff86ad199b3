"""What tests/conformance/run is made of."""
