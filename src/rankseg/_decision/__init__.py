"""From probabilities to labels: options, the checked problem, solvers, and what comes back."""
