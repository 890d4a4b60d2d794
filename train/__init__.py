"""Training: tasks, learners, evaluators and the one loop that runs them."""
