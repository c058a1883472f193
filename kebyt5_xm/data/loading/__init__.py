"""From the plan to micro-batches, in this process or in data workers."""
