"""What every pod has in common: its state, its health routes, admission, drain and its last words."""
