"""Whether a deployment is set up as it must be to keep tenants apart, and as it should be to be run."""
