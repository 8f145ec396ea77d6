"""Storage pools: made, changed, deleted, had on each member, and what lies in them recovered."""
