"""Images: decodes common formats to upright RGB."""
