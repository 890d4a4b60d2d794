"""Training: tasks, learners, evaluators and the loop that runs them."""
