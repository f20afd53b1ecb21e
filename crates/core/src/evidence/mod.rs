//! What signals may mean: one detector per file.
