"""Run the paper's tables: plan the runs of each row, run them, and compare their results with the paper's."""
