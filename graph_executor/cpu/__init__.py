"""The CPU backend: a device is a share of the host's cores, its streams are threads."""
