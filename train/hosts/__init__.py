"""Many processes as one run: start, agreement, watchdog, preemption."""
