"""What a policy would have done to the past: judged by the live code, scored against what happened."""
