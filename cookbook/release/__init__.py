"""What would be published, built and tried: `make release-check`."""
