"""The paper's released runs, its claims and figures, and ours compared with them."""
