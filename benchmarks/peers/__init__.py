"""What people use today for the same job, tuned as its documentation advises."""
