"""The event-driven kernels of suspike: rules, a plain-loop reference, and compiled targets of the same signatures."""
